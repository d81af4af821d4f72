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

    /// From `2024-02-29`, `2024-02-29 12:00`, `2024-02-29T12:00:00.1234567Z`: UTC, the end of the time may be left out. `None` for other
    /// text and for times before 1601.
    pub fn parse_utc(text: &str) -> Option<FileTime> {
        let text = text.strip_suffix(['Z', 'z']).unwrap_or(text);
        let (date, clock) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00"));
        let number = |text: &str, low: i64, high: i64| -> Option<i64> {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|n| digits && (low..=high).contains(n))
        };
        let mut parts = date.split('-');
        let (year, month) = (number(parts.next()?, 1601, 9999)?, number(parts.next()?, 1, 12)?);
        let day = number(parts.next()?, 1, 31)?;
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut clock = clock.split(':');
        let (hour, minute) = (number(clock.next()?, 0, 23)?, number(clock.next()?, 0, 59)?);
        let second = clock.next().map_or(Some(0), |second| number(second, 0, 59))?;
        let fraction = match fraction {
            "" => 0,
            digits if digits.len() <= 7 => number(&format!("{digits:0<7}"), 0, 9_999_999)?,
            _ => return None,
        };
        let days = days_from_civil(year, month, day);
        if parts.next().is_some() || clock.next().is_some() || civil_from_days(days) != (year, month, day) {
            return None;
        }
        let time = FileTime::from_unix_seconds(days * 86_400 + hour * 3600 + minute * 60 + second);
        Some(FileTime(time.0.checked_add(u64::try_from(fraction).ok()?)?))
    }

    /// So many seconds earlier; not before 1601.
    #[must_use]
    pub fn earlier_by(self, seconds: u64) -> FileTime {
        FileTime(self.0.saturating_sub(seconds.saturating_mul(INTERVALS_PER_SECOND)))
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

/// Days since 1970-01-01 of a date (Hinnant, as below).
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of the proleptic Gregorian calendar from days since 1970-01-01 (Hinnant, "chrono-compatible
/// low-level date algorithms").
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
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
    fn times_are_read_as_they_are_shown() {
        for text in
            ["1601-01-01T00:00:00.0000000Z", "2024-02-29T12:00:00.0000000Z", "9999-12-31T23:59:59.9999999Z"]
        {
            assert_eq!(FileTime::parse_utc(text).map(|time| time.to_string()).as_deref(), Some(text));
        }
        assert_eq!(FileTime::parse_utc("2024-02-29 12:00"), FileTime::parse_utc("2024-02-29T12:00:00.0Z"));
        assert_eq!(FileTime::parse_utc("2020-01-01"), Some(FileTime(132_223_104_000_000_000)));
        for bad in [
            "",
            "2023-02-29",
            "2024-13-01",
            "2024-1",
            "1600-01-01",
            "2024-01-01T25:00",
            "2024-01-01-1",
            "+024-01-01",
            "7d",
        ] {
            assert_eq!(FileTime::parse_utc(bad), None, "{bad}");
        }
    }

    #[test]
    fn known_times() {
        assert_eq!(FileTime(0).to_string(), "1601-01-01T00:00:00.0000000Z");
        assert_eq!(FileTime(UNIX_EPOCH_INTERVALS).to_string(), "1970-01-01T00:00:00.0000000Z");
        assert_eq!(FileTime::from_unix_seconds(1_709_208_000).to_string(), "2024-02-29T12:00:00.0000000Z");
        assert_eq!(FileTime(132_223_104_000_000_007).to_string(), "2020-01-01T00:00:00.0000007Z");
        assert_eq!(FileTime(u64::MAX).unix_seconds(), 1_833_029_933_770);
    }
}
