//! Times as Windows stores them: FILETIME, 100-nanosecond intervals since 1601-01-01 UTC ([MS-DTYP] 2.3.3).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Intervals of 100 ns from 1601-01-01 to 1970-01-01.
const UNIX_EPOCH_INTERVALS: u64 = 116_444_736_000_000_000;
const INTERVALS_PER_SECOND: u64 = 10_000_000;

/// A FILETIME. Shown as RFC 3339 in UTC with seven digits after the point, so that nothing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime(pub u64);

impl FileTime {
    /// From whole seconds since 1970-01-01 UTC; times before 1601 become zero.
    pub fn from_unix_seconds(seconds: i64) -> FileTime {
        let intervals =
            i128::from(seconds) * i128::from(INTERVALS_PER_SECOND) + i128::from(UNIX_EPOCH_INTERVALS);
        FileTime(u64::try_from(intervals.max(0)).unwrap_or(u64::MAX))
    }

    /// From the clock of this machine.
    pub fn now() -> FileTime {
        FileTime::from_system_time(SystemTime::now())
    }

    /// From a time of the host; times before 1601 become zero.
    pub fn from_system_time(time: SystemTime) -> FileTime {
        let intervals = |since: Duration| u64::try_from(since.as_nanos() / 100).unwrap_or(u64::MAX);
        FileTime(match time.duration_since(UNIX_EPOCH) {
            Ok(since) => UNIX_EPOCH_INTERVALS.saturating_add(intervals(since)),
            Err(before) => UNIX_EPOCH_INTERVALS.saturating_sub(intervals(before.duration())),
        })
    }

    /// As a time of the host.
    pub fn to_system_time(self) -> SystemTime {
        let span = |intervals: u64| {
            Duration::new(intervals / INTERVALS_PER_SECOND, (intervals % INTERVALS_PER_SECOND) as u32 * 100)
        };
        match self.0.checked_sub(UNIX_EPOCH_INTERVALS) {
            Some(after) => UNIX_EPOCH.checked_add(span(after)),
            None => UNIX_EPOCH.checked_sub(span(UNIX_EPOCH_INTERVALS - self.0)),
        }
        .unwrap_or(UNIX_EPOCH)
    }

    /// Whole seconds since 1970-01-01 UTC, rounded down; negative before.
    pub fn unix_seconds(self) -> i64 {
        let intervals = i128::from(self.0) - i128::from(UNIX_EPOCH_INTERVALS);
        // At most 1.9e12, so the cast loses nothing.
        intervals.div_euclid(i128::from(INTERVALS_PER_SECOND)) as i64
    }

    /// True for zero, which most structures use for "never".
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for FileTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.unix_seconds();
        let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
        let second = seconds.rem_euclid(86_400);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:07}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            self.0 % INTERVALS_PER_SECOND
        )
    }
}

/// Year, month and day of the proleptic Gregorian calendar from days since 1970-01-01 (Hinnant, "chrono-compatible
/// low-level date algorithms").
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        assert_eq!(FileTime(0).to_string(), "1601-01-01T00:00:00.0000000Z");
        assert_eq!(FileTime(UNIX_EPOCH_INTERVALS).to_string(), "1970-01-01T00:00:00.0000000Z");
        assert_eq!(FileTime::from_unix_seconds(1_709_208_000).to_string(), "2024-02-29T12:00:00.0000000Z");
        assert_eq!(FileTime(132_223_104_000_000_007).to_string(), "2020-01-01T00:00:00.0000007Z");
        assert_eq!(FileTime(u64::MAX).unix_seconds(), 1_833_029_933_770);
    }
}
