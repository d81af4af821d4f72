//! Times in logs and in the registry's texts: `2023-09-04 15:01:53` and `2011/11/09/03:00:29`.

use vmrescue_base::time::FileTime;

/// The time in the first nineteen characters of a text, as if it were UTC. `None` when it is none.
pub(super) fn parse(text: &str) -> Option<FileTime> {
    let bytes = text.as_bytes().get(..19)?;
    let number = |from: usize, to: usize| -> Option<i64> {
        bytes[from..to].iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let separators = [bytes[4], bytes[7], bytes[10], bytes[13], bytes[16]];
    let right =
        matches!(separators, [b'-', b'-', b' ' | b'T', b':', b':'] | [b'/', b'/', b'/' | b' ', b':', b':']);
    if !right
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    // Days from the civil calendar (Hinnant).
    let shifted_year = year - i64::from(month <= 2);
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(FileTime::from_unix_seconds(days * 86_400 + hour * 3600 + minute * 60 + second))
}

/// A time of the guest's clock in UTC: `bias_minutes` is what Windows adds to local time to get UTC.
pub(super) fn to_utc(local: FileTime, bias_minutes: i32) -> FileTime {
    FileTime::from_unix_seconds(local.unix_seconds() + i64::from(bias_minutes) * 60)
}

/// Up to the second, for people: `2023-09-04 15:01:53`.
pub(super) fn short(time: FileTime) -> String {
    let text = time.to_string();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_are_read() {
        let time = parse("2012/03/14/07:13:51 and more").unwrap();
        assert_eq!(short(time), "2012-03-14 07:13:51");
        assert_eq!(short(parse("2024-02-29 12:00:00, Info").unwrap()), "2024-02-29 12:00:00");
        assert_eq!(short(to_utc(time, 480)), "2012-03-14 15:13:51");
        assert_eq!(parse("2024-13-29 12:00:00"), None);
        assert_eq!(parse("2024-12-29x12:00:00"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seconds in 0i64..4_000_000_000, text in "[0-9:/ \\-]{0,25}") {
            let time = FileTime::from_unix_seconds(seconds);
            prop_assert_eq!(parse(&short(time)), Some(time));
            let _ = parse(&text);
        }
    }
}
