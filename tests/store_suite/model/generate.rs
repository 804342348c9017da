//! What may happen to a store: operations, and how likely each is.

use super::*;

/// Some operations are worth little without the one that follows.
pub(super) fn phrase() -> impl Strategy<Value = Vec<Operation>> {
    let pair = |(one, next)| vec![one, next];
    prop_oneof![
        12 => operation().prop_map(|one| vec![one]),
        2 => (claim(), finish()).prop_map(pair),
        2 => (claim_fetches(), pick().prop_map(|job| Operation::Fetched { job })).prop_map(pair),
        2 => (claim_deliveries(), settle()).prop_map(pair),
        1 => (replay(), replay()).prop_map(pair),
        1 => (purge(), Just(Operation::Reopen)).prop_map(pair),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        12 => new().prop_map(Submit),
        6 => claim(),
        4 => claim_fetches(),
        4 => pick().prop_map(|job| Fetched { job }),
        1 => Just(Sweep),
        1 => (pick(), 1..90_i64).prop_map(|(job, by)| Extend { job, by }),
        1 => (pick(), select(&["preview", "extra"][..])).prop_map(|(job, name)| AddArtifact { job, name }),
        6 => finish(),
        2 => pick().prop_map(|job| Cancel { job }),
        2 => pick().prop_map(|job| Retry { job }),
        2 => pick().prop_map(|job| Delete { job }),
        1 => pick().prop_map(|job| Restore { job }),
        3 => claim_deliveries(),
        3 => settle(),
        1 => pick().prop_map(|delivery| GiveBack { delivery }),
        1 => pick().prop_map(|delivery| CancelDelivery { delivery }),
        1 => (pick(), any::<bool>()).prop_map(|(delivery, force)| SendAgain { delivery, force }),
        1 => (0..3_usize, prop::bool::weighted(0.7))
            .prop_map(|(index, resume)| HoldDestination { index, resume }),
        2 => replay(),
        3 => purge(),
        1 => (1..3_usize).prop_map(|count| ForgetGarbage { count }),
        1 => (any::<bool>(), prop::bool::weighted(0.3)).prop_map(|(intake, work)| Pause { intake, work }),
        1 => listed().prop_map(List),
        2 => (1..40_i64).prop_map(|seconds| Wait { seconds }),
        1 => Just(Reopen),
    ]
}

fn claim() -> impl Strategy<Value = Operation> {
    (1..4_usize, 1..60_i64).prop_map(|(limit, lease)| Operation::Claim { limit, lease })
}

fn claim_fetches() -> impl Strategy<Value = Operation> {
    (1..4_usize, 1..3_usize, 1..60_i64).prop_map(|(places, per_source, lease)| Operation::ClaimFetches {
        places,
        per_source,
        lease,
    })
}

fn finish() -> impl Strategy<Value = Operation> {
    let ending = prop_oneof![
        3 => Just(Ended::Completed),
        2 => Just(Ended::Failed),
        1 => (0..40_i64).prop_map(Ended::RetryIn),
        1 => Just(Ended::Cancelled),
        1 => option::of(0..40_i64).prop_map(Ended::GivenBack),
    ];
    (pick(), ending).prop_map(|(job, ending)| Operation::Finish { job, ending })
}

fn claim_deliveries() -> impl Strategy<Value = Operation> {
    (1..60_i64).prop_map(|lease| Operation::ClaimDeliveries { lease })
}

fn settle() -> impl Strategy<Value = Operation> {
    let ending = prop_oneof![
        Just(Settled::Delivered),
        (0..60_i64).prop_map(Settled::RetryIn),
        Just(Settled::Exhausted)
    ];
    (pick(), ending).prop_map(|(delivery, ending)| Operation::Settle { delivery, ending })
}

fn replay() -> impl Strategy<Value = Operation> {
    use DeliveryState::{Cancelled, Delivered, Exhausted, Pending};
    const STATES: [&[DeliveryState]; 3] =
        [&[Exhausted], &[Pending, Exhausted], &[Pending, Exhausted, Cancelled, Delivered]];
    const ACTIONS: [ReplayAction; 3] = [ReplayAction::Pause, ReplayAction::Resume, ReplayAction::Cancel];
    prop_oneof![
        2 => (select(&STATES[..]), any::<bool>(), option::weighted(0.3, 0..2_u8))
            .prop_map(|(states, force, key)| Operation::StartReplay { states, force, key }),
        2 => (0..4_usize).prop_map(|index| Operation::AdvanceReplay { index }),
        1 => (0..4_usize, select(&ACTIONS[..]))
            .prop_map(|(index, action)| Operation::ChangeReplay { index, action }),
    ]
}

fn purge() -> impl Strategy<Value = Operation> {
    let after = select(&[0, KEEP_DELETED, KEEP_FINISHED, 3600][..]);
    (after, 0..4_usize).prop_map(|(after, limit)| Operation::Purge { after, limit })
}

fn new() -> impl Strategy<Value = New> {
    let tags = subsequence(&TAGS[..], 0..=TAGS.len());
    // Mostly none, the usual ones, or all.
    let wants = prop_oneof![
        Just(Vec::new()),
        Just(EventKind::TERMINAL.to_vec()),
        Just(EventKind::OF_JOBS.to_vec()),
        subsequence(&EventKind::OF_JOBS[..], 1..4),
    ];
    let times = (option::weighted(0.2, 0..40_i64), option::weighted(0.2, 1..60_u64));
    let key = option::weighted(0.4, (select(&["k", "kk"][..]), prop::bool::weighted(0.2).prop_map(u8::from)));
    let host = option::weighted(0.4, select(&["a.example", "b.example"][..]));
    let plain = (select(&CLIENTS[..]), 0..3_u32, select(&Priority::ALL[..]), host);
    (plain, times, wants, tags, key).prop_map(
        |((client, rank, priority, host), (start, deadline), wants, tags, key)| New {
            client,
            rank,
            priority,
            start,
            deadline,
            wants,
            tags,
            host,
            key,
        },
    )
}

fn listed() -> impl Strategy<Value = Listed> {
    let (client, status) = (option::of(select(&CLIENTS[..])), option::of(select(&JobStatus::ALL[..])));
    let (tag, time) = (option::of(select(&TAGS[..])), || option::of(0..100_i64));
    (client, status, tag, time(), time(), any::<bool>()).prop_map(
        |(client, status, tag, after, before, deleted)| Listed {
            client,
            status,
            tag,
            after,
            before,
            deleted,
        },
    )
}

fn pick() -> impl Strategy<Value = Pick> {
    (0..8_usize, prop::bool::weighted(0.1), prop::bool::weighted(0.1))
        .prop_map(|(index, astray, stale)| Pick { index, astray, stale })
}
