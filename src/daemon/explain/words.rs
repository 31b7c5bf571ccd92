//! Reasons in words, for people who never read the source.

use crate::base::human::{format_ratio, format_size};
use crate::base::limits::{CONTRIBUTION_BYTES_MIN, EXCESS_RATIO_MAX, GRANT_GROUP_BYTES};
use crate::engine::scheduler::class::Class;
use crate::shared::ledger::Standing;

/// Why a party stands in `class`, whose balance is `balance` and whose group was granted so much.
pub(super) fn why(class: Class, balance: Standing, granted_bytes: u64) -> String {
    let Standing { received_bytes: gave_bytes, sent_bytes: got_bytes } = balance;
    match class {
        Class::Owed => format!("gave {} more than it got", format_size(gave_bytes.saturating_sub(got_bytes))),
        Class::Excess => format!("got {} times what it gave", ratio(got_bytes, gave_bytes)),
        Class::Grant => {
            let [used, all] = [granted_bytes, GRANT_GROUP_BYTES].map(format_size);
            format!("has used {used} of a newcomer's {all}")
        }
        Class::Rest if gave_bytes < CONTRIBUTION_BYTES_MIN => {
            "gave nothing: equal share of its group".to_owned()
        }
        Class::Rest => format!("got over {EXCESS_RATIO_MAX} times what it gave: equal share of its group"),
        Class::Again => "wants only what others have or are being given".to_owned(),
    }
}

fn ratio(part: u64, whole: u64) -> String {
    format_ratio(u128::from(part) * 1000 / u128::from(whole.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_reason_in_words() {
        let standing = |received_bytes, sent_bytes| Standing { received_bytes, sent_bytes };
        const GIB: u64 = 1 << 30;
        for (class, balance, granted, want) in [
            (Class::Owed, standing(4 * GIB, GIB), 0, "gave 3.00 GiB more than it got"),
            (Class::Excess, standing(GIB, GIB * 13 / 10), 0, "got 1.29 times what it gave"),
            (Class::Excess, standing(10, 13), 0, "got 1.30 times what it gave"),
            (Class::Grant, standing(0, 0), 256 << 10, "has used 256 KiB of a newcomer's 1.00 MiB"),
            (Class::Rest, standing(0, GIB), 0, "gave nothing: equal share of its group"),
            (
                Class::Rest,
                standing(GIB, 90 * GIB),
                0,
                "got over 8 times what it gave: equal share of its group",
            ),
            (Class::Again, standing(0, 0), 0, "wants only what others have or are being given"),
        ] {
            assert_eq!(why(class, balance, granted), want);
        }
        // Numbers are read one after the other and may not fit the class any more.
        assert_eq!(why(Class::Owed, standing(1, 2), 0), "gave 0 B more than it got");
        assert_eq!(
            why(Class::Excess, standing(0, u64::MAX), 0),
            "got 18446744073709551615.00 times what it gave"
        );
    }
}
