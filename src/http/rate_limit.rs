//! What is left of a client's quotas, as draft-ietf-httpapi-ratelimit-headers-10 has it in headers.

use http::{HeaderMap, HeaderName};

use super::represent::insert;
use crate::service::quotas::{Allowance, WINDOW};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Adds both headers; none where nothing is limited.
pub(super) fn tell(headers: &mut HeaderMap, allowances: &[Allowance]) {
    if allowances.is_empty() {
        return;
    }
    let list =
        |item: &dyn Fn(&Allowance) -> String| allowances.iter().map(item).collect::<Vec<_>>().join(", ");
    let window = WINDOW.as_secs();
    let policy = list(&|Allowance { policy, quota, .. }| format!("\"{policy}\";q={quota};w={window}"));
    let limit = list(&|Allowance { policy, remaining, full_in, .. }| {
        // Not before it is so.
        let seconds = full_in.as_millis().div_ceil(1000);
        format!("\"{policy}\";r={remaining};t={seconds}")
    });
    insert(headers, POLICY, &policy);
    insert(headers, LIMIT, &limit);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_quota_is_an_item_of_both_lists() {
        let allowance = |policy, quota, remaining, millis| {
            let full_in = Duration::from_millis(millis);
            Allowance { policy, quota, remaining, full_in }
        };
        let mut headers = HeaderMap::new();
        tell(&mut headers, &[]);
        assert!(headers.is_empty());
        tell(&mut headers, &[allowance("requests", 120, 117, 1500), allowance("upload-bytes", 9, 9, 0)]);
        assert_eq!(headers[POLICY], "\"requests\";q=120;w=60, \"upload-bytes\";q=9;w=60");
        assert_eq!(headers[LIMIT], "\"requests\";r=117;t=2, \"upload-bytes\";r=9;t=0");
    }
}
