//! Time as an argument: two readings, the texts of the wire, a table of deadlines.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::ops::{Add, Sub};

use time::{Date, Month, OffsetDateTime};

/// Milliseconds: a point on the monotonic clock, or a length of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// A length of whole seconds.
    pub const fn from_secs(secs: u64) -> Millis {
        Millis(secs.saturating_mul(1000))
    }

    /// The difference, zero when `earlier` is later.
    pub const fn saturating_sub(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Millis {
    type Output = Millis;
    fn add(self, other: Millis) -> Millis {
        Millis(self.0.saturating_add(other.0))
    }
}

impl Sub for Millis {
    type Output = Millis;
    fn sub(self, other: Millis) -> Millis {
        self.saturating_sub(other)
    }
}

/// The wall clock: microseconds since 1970-01-01T00:00:00Z. May step either way (D-69).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

impl Wall {
    /// From whole Unix seconds.
    pub const fn from_secs(secs: i64) -> Wall {
        Wall(secs.saturating_mul(1_000_000))
    }

    /// Whole Unix seconds, rounded down.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    fn date_time(self) -> OffsetDateTime {
        // Years outside ±9999 are clamped: no clock of ours shows them, and a text must come out.
        OffsetDateTime::from_unix_timestamp(self.secs().clamp(-377_705_116_800, 253_402_300_799))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// `Tue, 04 Sep 2012 23:01:02 GMT` (2.2: jobs and ZeroMQ messages).
    pub fn rfc1123(self) -> String {
        let t = self.date_time();
        let weekday = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
            [usize::from(t.weekday().number_days_from_monday())];
        format!(
            "{weekday}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
            t.day(),
            MONTHS[usize::from(u8::from(t.month()) - 1)],
            t.year(),
            t.hour(),
            t.minute(),
            t.second()
        )
    }

    /// `2003-12-13T18:30:02Z` (Chef's signed headers), fractions cut off.
    pub fn iso8601(self) -> String {
        let t = self.date_time();
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        )
    }

    /// `2014-07-30 00:26:48.419302Z` (8.4: event feeds).
    pub fn feed_timestamp(self) -> String {
        let t = self.date_time();
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            self.0.rem_euclid(1_000_000)
        )
    }

    /// Reads what [`Wall::feed_timestamp`] writes.
    pub fn parse_feed_timestamp(text: &str) -> Option<Wall> {
        let (date, rest) = text.split_once(' ')?;
        let (time, fraction) = rest.split_once('.')?;
        let fraction = fraction.strip_suffix('Z')?;
        if fraction.len() != 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let whole = Wall::parse_iso8601(&format!("{date}T{time}"))?;
        Some(Wall(whole.0.checked_add(fraction.parse().ok()?)?))
    }

    /// Reads RFC 1123, RFC 850 and asctime forms; a zone is ignored and taken as GMT (4.6).
    pub fn parse_http_date(text: &str) -> Option<Wall> {
        parse_http_date(text)
    }

    /// Reads exactly `YYYY-MM-DDTHH:MM:SS`, with or without `Z` (3.1).
    pub fn parse_iso8601(text: &str) -> Option<Wall> {
        let text = text.strip_suffix('Z').unwrap_or(text);
        let b = text.as_bytes();
        if b.len() != 19 || b[4] != b'-' || b[7] != b'-' || b[10] != b'T' || b[13] != b':' || b[16] != b':' {
            return None;
        }
        let n = |from: usize, to: usize| digits(text.get(from..to)?);
        civil(n(0, 4)?, n(5, 7)?, n(8, 10)?, n(11, 13)?, n(14, 16)?, n(17, 19)?)
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn digits(text: &str) -> Option<u32> {
    if text.is_empty() || text.len() > 4 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn month(text: &str) -> Option<u32> {
    MONTHS.iter().position(|m| text.get(..3).is_some_and(|t| t.eq_ignore_ascii_case(m))).map(|i| i as u32 + 1)
}

fn civil(year: u32, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Option<Wall> {
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    let at = date
        .with_hms(u8::try_from(hour).ok()?, u8::try_from(minute).ok()?, u8::try_from(second).ok()?)
        .ok()?;
    Some(Wall::from_secs(at.assume_utc().unix_timestamp()))
}

fn clock(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(':');
    let clock = (digits(parts.next()?)?, digits(parts.next()?)?, digits(parts.next()?)?);
    parts.next().is_none().then_some(clock)
}

fn parse_http_date(text: &str) -> Option<Wall> {
    if text.len() > 64 {
        return None;
    }
    if let Some((_, rest)) = text.split_once(',') {
        let rest = rest.trim_start();
        let mut words = rest.split_ascii_whitespace();
        let first = words.next()?;
        if let Some((day, month_year)) = first.split_once('-') {
            // RFC 850: Tuesday, 04-Mar-25 10:15:00 GMT
            let (name, year) = month_year.split_once('-')?;
            let mut full = digits(year)?;
            if year.len() == 2 {
                full += if full < 70 { 2000 } else { 1900 };
            }
            let (h, m, s) = clock(words.next()?)?;
            return civil(full, month(name)?, digits(day)?, h, m, s);
        }
        // RFC 1123: Tue, 04 Mar 2025 10:15:00 GMT
        let month = month(words.next()?)?;
        let year = digits(words.next()?)?;
        let (h, m, s) = clock(words.next()?)?;
        return civil(year, month, digits(first)?, h, m, s);
    }
    // asctime: Tue Mar  4 10:15:00 2025
    let mut words = text.split_ascii_whitespace();
    words.next()?;
    let month = month(words.next()?)?;
    let day = digits(words.next()?)?;
    let (h, m, s) = clock(words.next()?)?;
    civil(digits(words.next()?)?, month, day, h, m, s)
}

impl From<Millis> for std::time::Duration {
    fn from(span: Millis) -> std::time::Duration {
        std::time::Duration::from_millis(span.0)
    }
}

/// One moment: the monotonic clock for deadlines, the wall clock for texts. One argument, so that
/// no one mixes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Since an arbitrary start; never goes back.
    pub mono: Millis,
    /// What the host believes the time to be.
    pub wall: Wall,
}

/// Deadlines by key, ordered: setting, clearing and asking for the earliest cost O(log n).
#[derive(Debug, Clone)]
pub struct Deadlines<K> {
    by_key: BTreeMap<K, Millis>,
    by_time: BTreeSet<(Millis, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Deadlines { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Ord + Clone + Hash> Deadlines<K> {
    /// Sets or moves the deadline of `key`.
    pub fn set(&mut self, key: K, at: Millis) {
        if let Some(old) = self.by_key.insert(key.clone(), at) {
            self.by_time.remove(&(old, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    /// Removes the deadline of `key`, if any.
    pub fn clear(&mut self, key: &K) {
        if let Some(old) = self.by_key.remove(key) {
            self.by_time.remove(&(old, key.clone()));
        }
    }

    /// The deadline of `key`.
    pub fn at(&self, key: &K) -> Option<Millis> {
        self.by_key.get(key).copied()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Millis> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest deadline that `now` has reached; call until `None`.
    pub fn pop_due(&mut self, now: Millis) -> Option<K> {
        let (at, _) = self.by_time.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// How many deadlines are set.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let at = Wall(1_709_251_198_000_042);
        assert_eq!(at.rfc1123(), "Thu, 29 Feb 2024 23:59:58 GMT");
        assert_eq!(at.iso8601(), "2024-02-29T23:59:58Z");
        assert_eq!(at.feed_timestamp(), "2024-02-29 23:59:58.000042Z");
        assert_eq!(Wall::parse_feed_timestamp("2024-02-29 23:59:58.000042Z"), Some(at));
        for bad in ["", "2024-02-29 23:59:58Z", "2024-02-29 23:59:58.42Z", "2024-02-29T23:59:58.000042Z"] {
            assert_eq!(Wall::parse_feed_timestamp(bad), None, "{bad}");
        }
        assert_eq!(Wall::parse_iso8601("2024-02-29T23:59:58Z"), Some(Wall::from_secs(at.secs())));
        assert_eq!(Wall::parse_iso8601("2024-02-29T23:59:58"), Some(Wall::from_secs(at.secs())));
        for bad in [
            "",
            "2024-02-30T00:00:00Z",
            "2024-02-29 23:59:58Z",
            "2024-02-29T23:59:58.1Z",
            "2024-02-29T23:59:58+00:00",
            "2024-02-29T23:59:60Z",
            "+024-02-29T23:59:58Z",
        ] {
            assert_eq!(Wall::parse_iso8601(bad), None, "{bad}");
        }
    }

    #[test]
    fn http_dates() {
        let at = Some(Wall::from_secs(1_741_083_300));
        for good in [
            "Tue, 04 Mar 2025 10:15:00 GMT",
            "Tue, 04 Mar 2025 10:15:00",
            "Tue, 04 Mar 2025 10:15:00 +0500",
            "Tuesday, 04-Mar-25 10:15:00 GMT",
            "Tue Mar  4 10:15:00 2025",
        ] {
            assert_eq!(Wall::parse_http_date(good), at, "{good}");
        }
        for bad in [
            "",
            "2025-03-04T10:15:00Z",
            "Tue, 32 Mar 2025 10:15:00 GMT",
            "Tue, 04 Mar",
            "Tue, 04 Foo 2025 10:15:00 GMT",
        ] {
            assert_eq!(Wall::parse_http_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn deadlines_move_and_come_due_in_order() {
        let mut table = Deadlines::default();
        table.set("a", Millis(5));
        table.set("b", Millis(3));
        table.set("a", Millis(2));
        assert_eq!(table.next(), Some(Millis(2)));
        assert_eq!(table.pop_due(Millis(1)), None);
        assert_eq!(table.pop_due(Millis(3)), Some("a"));
        table.clear(&"b");
        assert_eq!(table.pop_due(Millis(9)), None);
        assert!(table.is_empty());
    }
}
