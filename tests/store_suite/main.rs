//! What every engine of the store must do: one suite of cases over the port, run over each engine, and generated
//! sequences of operations that run on an engine and on the model side by side.
//!
//! A case is a function over a [`rig::Rig`], and says in its name what holds. The engines are in `engines`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a test that meets the unexpected fails on the spot, and nothing here is anyone's interface"
)]

mod claim;
mod clients;
mod deliveries;
mod dispatch;
mod engines;
mod events;
mod fetches;
mod leases;
mod lists;
mod model;
mod purge;
mod queue;
mod replays;
mod rig;
mod secrets;
mod stopping;
mod submit;

/// Makes each case a test of each engine: `cargo test --test store_suite reopened::submit`.
macro_rules! suite {
    ($($subject:ident: $($case:ident)+;)+) => {
        mod memory { $(mod $subject { $(suite!(@test Memory, $subject, $case);)+ })+ }
        mod sled { $(mod $subject { $(suite!(@test Sled, $subject, $case);)+ })+ }
        mod reopened { $(mod $subject { $(suite!(@test Reopened, $subject, $case);)+ })+ }
    };
    (@test $engine:ident, $subject:ident, $case:ident) => {
        #[test]
        fn $case() {
            crate::rig::run(crate::engines::Engine::$engine, crate::$subject::$case);
        }
    };
}

suite! {
    submit:
        a_job_reads_back_with_its_event
        a_repeated_key_finds_the_first_job
        a_key_is_the_clients_own
        a_key_is_free_again_when_its_job_is_purged
        a_job_that_is_too_large_leaves_nothing;
    claim:
        priority_goes_before_age_within_a_client
        clients_take_turns_however_much_one_has_waiting
        no_client_gets_ahead_of_another_by_priority
        a_scheduled_job_starts_then_and_not_before
        a_batch_is_claimed_once_each_under_its_own_lease
        claimers_at_once_get_different_jobs
        a_burst_of_due_jobs_leaves_nobody_asleep;
    fetches:
        a_picture_is_fetched_before_anything_is_made_of_it
        what_was_not_fetched_is_fetched_by_the_next
        one_that_was_called_off_does_not_go_on
        no_source_takes_all_places
        sources_take_turns_and_priority_goes_before_age
        it_waits_as_others_do
        a_repeated_key_finds_it_too;
    leases:
        a_lease_that_runs_out_requeues_and_counts
        a_stale_token_is_refused_and_changes_nothing
        a_worker_whose_clock_stopped_loses_its_job_to_another
        an_extended_lease_holds
        what_is_given_back_is_not_counted
        a_failed_try_waits_for_the_next
        artifacts_outlive_their_worker
        a_job_ends_once
        opening_frees_what_was_claimed
        what_is_not_there_is_not_found;
    stopping:
        a_deadline_ends_a_queued_job_once
        a_deadline_ends_a_running_job_and_its_worker_is_refused
        a_deadline_ends_a_job_before_its_scheduled_start
        a_queued_job_is_cancelled_at_once
        a_running_job_is_asked_to_stop_once
        a_job_that_was_called_off_does_not_go_back_to_the_queue
        a_job_that_has_ended_is_not_cancelled
        another_go_starts_afresh
        only_what_failed_or_was_cancelled_has_another_go
        deleting_hides_and_restoring_takes_it_back
        deleting_cancels_what_has_not_ended
        a_change_is_made_at_the_revision_that_is_expected_alone;
    lists:
        pages_hold_each_job_once_newest_first
        every_filter_and_combination
        pages_are_stable_while_jobs_come_in
        a_job_that_moves_on_is_in_every_list_once
        deleted_jobs_are_left_out_unless_asked_for;
    events:
        the_log_tells_everything_in_order
        the_log_is_read_in_pages
        a_place_in_the_log_is_never_given_twice
        an_event_stays_as_it_was
        each_wanted_kind_has_a_delivery_and_the_job_shows_the_latest;
    deliveries:
        what_is_due_first_is_claimed_first
        an_attempt_ends_in_one_of_three_ways
        a_stale_attempt_is_refused_and_leaves_no_record
        what_was_cut_off_is_due_at_once
        an_expired_lease_makes_a_delivery_due
        the_job_shows_the_latest_delivery_only;
    dispatch:
        a_retry_goes_first_in_every_fourth_turn
        a_new_destination_gets_few_at_once_and_more_as_it_takes_them
        those_not_known_to_be_well_share_a_part
        a_destination_with_much_waiting_delays_no_other
        clients_take_turns_however_many_destinations_one_has
        attempts_keep_to_the_rate
        failures_open_the_breaker_and_a_probe_closes_it
        a_success_of_before_closes_the_breaker_at_once
        few_or_old_failures_leave_it_closed
        a_refusal_neither_opens_nor_proves_anything
        days_of_failures_suspend_and_a_success_resumes
        what_is_paused_costs_nothing_and_waits_for_somebody
        who_wants_no_more_gets_no_more_until_resumed
        what_stands_open_suspended_or_paused_outlasts_the_store;
    replays:
        a_repeated_key_finds_the_first_replay
        each_that_fits_is_taken_up_once_and_it_ends_with_the_last
        what_still_waits_is_taken_up_once_too
        a_paused_one_takes_up_nothing_and_one_that_ended_stays_so
        an_opening_goes_on_behind_the_last
        what_arrived_is_left_unless_forced
        what_somebody_else_takes_over_is_counted_apart
        replays_and_their_items_are_read_in_pages;
    purge:
        only_what_is_due_goes_and_with_all_that_belongs_to_it
        a_limit_leaves_the_rest_for_the_next_time
        a_callback_on_its_way_postpones_it
        a_callback_that_is_held_back_for_long_is_given_up
        replays_go_a_while_after_they_have_ended
        a_restored_job_and_one_with_another_go_stay
        a_story_longer_than_one_step_goes_in_several
        long_stories_with_callbacks_are_told_whole_and_go_whole
        pictures_are_listed_until_forgotten;
    queue:
        paused_work_claims_nothing_and_ends_what_is_over
        a_pause_outlasts_the_store
        the_next_due_time_is_that_of_the_next_step
        who_waits_is_counted_after_every_step
        changes_wake_those_who_wait
        a_closed_store_takes_no_steps
        a_place_in_the_queue_is_counted_in_turns;
    secrets:
        secrets_are_a_clients_own_and_outlast_the_store
        of_two_rotations_at_once_one_is_refused
        the_keyring_outlasts_the_store
        they_move_with_everything_else;
    clients:
        a_client_is_found_by_name_and_by_key_until_the_key_is_taken_from_it
        of_two_changes_at_once_one_is_refused
        they_are_listed_by_name_in_pages
        what_operators_did_is_read_newest_first_and_goes_by_age
        who_waits_is_counted_for_each_client
        they_move_with_everything_else;
}
