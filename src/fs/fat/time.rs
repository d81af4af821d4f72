//! Dates and times of FAT: local time of the machine that wrote them, of which no zone is known, so that it is taken for UTC.

use vmrescue_base::time::{FileTime, civil_from_days, days_from_civil};

const FIRST_YEAR: i64 = 1980;
const LAST_YEAR: i64 = FIRST_YEAR + 127;
/// Intervals of 100 ns in 10 ms.
const CENTISECOND: u64 = 100_000;

/// Date, time and tens of milliseconds as a time; zero when there is no date, or one that cannot be.
pub(super) fn from_dos(date: u16, time: u16, centiseconds: u8) -> FileTime {
    let (year, month, day) =
        (i64::from(date >> 9) + FIRST_YEAR, i64::from(date >> 5 & 15), i64::from(date & 31));
    let (hour, minute, second) = (i64::from(time >> 11), i64::from(time >> 5 & 63), i64::from(time & 31) * 2);
    let days = days_from_civil(year, month, day);
    if civil_from_days(days) != (year, month, day) {
        return FileTime::default();
    }
    let clock = if hour < 24 && minute < 60 && second < 60 { hour * 3600 + minute * 60 + second } else { 0 };
    let whole = FileTime::from_unix_seconds(days * 86_400 + clock);
    FileTime(whole.0 + u64::from(centiseconds.min(199)) * CENTISECOND)
}

/// A time as date, time (in steps of two seconds) and tens of milliseconds above that. Zero stays zero; times before 1980 and after
/// 2107 become the first and the last one that there is.
pub(super) fn to_dos(time: FileTime) -> (u16, u16, u8) {
    if time.is_zero() {
        return (0, 0, 0);
    }
    let seconds = time.unix_seconds();
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    if year < FIRST_YEAR {
        return (1 << 5 | 1, 0, 0);
    }
    if year > LAST_YEAR {
        return ((127 << 9) | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29, 199);
    }
    let date = (year - FIRST_YEAR) << 9 | month << 5 | day;
    let of_day = seconds.rem_euclid(86_400);
    let clock = (of_day / 3600) << 11 | (of_day / 60 % 60) << 5 | (of_day % 60 / 2);
    let centiseconds = time.0 % 10_000_000 / CENTISECOND + (of_day % 2) as u64 * 100;
    // All fit: the parts were reduced above.
    (date as u16, clock as u16, centiseconds as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_in_steps_of_ten_milliseconds() {
        for text in
            ["1980-01-01", "2024-02-29T23:59:59.99", "2107-12-31T23:59:59.99", "2026-11-28T01:02:03.45"]
        {
            let time = FileTime::parse_utc(text).unwrap();
            let (date, clock, rest) = to_dos(time);
            assert_eq!(from_dos(date, clock, rest), time, "{text}");
        }
    }

    #[test]
    fn no_date_is_no_time() {
        assert!(from_dos(0, 0, 0).is_zero() && from_dos(0, 0x1234, 5).is_zero());
        assert!(from_dos(30 << 5, 0, 0).is_zero(), "month 14");
        assert_eq!(to_dos(FileTime::default()), (0, 0, 0));
        assert_eq!(to_dos(FileTime::parse_utc("1979-12-31").unwrap()), (33, 0, 0));
    }
}
