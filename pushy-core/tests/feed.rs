//! Reading event feeds: any way of cutting the bytes, what servers of both kinds send, what must not be believed.

use proptest::prelude::*;
use pushy_core::ErrorCode;
use pushy_core::feed::{Entry, MAX_ENTRY, Reader};

/// The entries of a body that ended, fed in pieces of these sizes, then in one.
fn read(bytes: &[u8], sizes: &[usize]) -> (Vec<Entry>, Option<Entry>) {
    let mut reader = Reader::default();
    let mut found = Vec::new();
    let mut rest = bytes;
    for size in sizes {
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        reader.push(piece).unwrap();
        found.extend(std::iter::from_fn(|| reader.next_entry()));
        rest = after;
    }
    reader.push(rest).unwrap();
    found.extend(std::iter::from_fn(|| reader.next_entry()));
    (found, reader.finish().unwrap())
}

fn check(text: &str, expected: &[(&str, Option<&str>, &str)], unended: Option<&str>) {
    for size in [1, 2, 3, 7, 1000] {
        let (found, last) = read(text.as_bytes(), &vec![size; text.len()]);
        let found: Vec<_> =
            found.iter().map(|e| (e.name.as_str(), e.id.as_deref(), e.data.as_str())).collect();
        assert_eq!(found, expected, "{text:?} in pieces of {size}");
        assert_eq!(last.as_ref().map(|e| e.name.as_str()), unended, "{text:?} in pieces of {size}");
    }
}

#[test]
fn what_servers_send() {
    let start = "event: start\nid: job-1\ndata: {\"timestamp\":\"2025-03-04 10:15:00.104233Z\"}";
    let read = ("start", Some("job-1"), "{\"timestamp\":\"2025-03-04 10:15:00.104233Z\"}");
    check("", &[], None);
    check("\n\n", &[], None);
    check(&format!("{start}\n\n"), &[read], None);
    check(&format!(":keepalive\n{start}\n\n:keepalive\n:keepalive\n"), &[read], None);
    check(
        &format!("{start}\n\n:keepalive\nevent: rehab\nid: job-2\ndata: {{}}\n\n"),
        &[read, ("rehab", Some("job-2"), "{}")],
        None,
    );
    // The original's last event has no blank line after it (D-30).
    check(start, &[], Some("start"));
    check(
        &format!("{start}\n\nevent: job_complete\nid: job-2\ndata: {{\"a\":1}}"),
        &[read],
        Some("job_complete"),
    );
    // Half an event is none.
    check(&start[..start.len() - 1], &[], None);
    check("event: start\nid: job-1", &[], None);
}

#[test]
fn what_others_may_send() {
    check("\u{feff}data: 1\r\n\r\n", &[("message", None, "1")], None);
    check("data:1\rid\rdata\r\rdata: {}\n\n", &[("message", Some(""), "1\n"), ("message", None, "{}")], None);
    check("retry: 5\nevent: x\n\ndata:  two\n\n", &[("message", None, " two")], None);
    check("id: a\0b\ndata\n\n", &[("message", None, "")], None);
}

#[test]
fn an_entry_says_when_it_happened() {
    let (found, _) =
        read(b"data: {\"timestamp\":\"2025-03-04 10:15:17.901120Z\",\"node\":\"a\"}\n\ndata: [1]\n\n", &[]);
    assert_eq!(found[0].at().map(|at| at.0), Some(1_741_083_317_901_120));
    assert_eq!(found[0].json().unwrap()["node"], "a");
    assert_eq!(found[1].at(), None);
    assert_eq!(found[1].json().unwrap_err().code(), ErrorCode::Protocol);
}

#[test]
fn nobody_makes_us_remember_without_end() {
    let piece = vec![b'x'; 1 << 20];
    let mut reader = Reader::default();
    let taken = (0..).take_while(|_| reader.push(&piece).is_ok()).count();
    assert_eq!(taken, MAX_ENTRY >> 20);
    let mut reader = Reader::default();
    let line = [b"data: ", piece.as_slice(), b"\n"].concat();
    let taken = (0..).take_while(|_| reader.push(&line).is_ok()).count();
    assert!(taken <= MAX_ENTRY >> 20, "{taken}");
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_entries(
        bytes in prop_oneof![
            prop::collection::vec(prop::sample::select(b"\r\n: dataevntid{}\xEF\xBB\xBF\x00".to_vec()), 0..200),
            prop::collection::vec(any::<u8>(), 0..200),
        ],
        sizes in prop::collection::vec(0usize..9, 0..60),
    ) {
        prop_assert_eq!(read(&bytes, &sizes), read(&bytes, &[]));
    }

    #[test]
    fn what_is_written_is_read(
        entries in prop::collection::vec(("[a-z_]{1,12}", "[ -~]{0,12}", "[ -~é]{0,40}"), 0..8),
        sizes in prop::collection::vec(0usize..9, 0..60),
    ) {
        let text: String =
            entries.iter().map(|(name, id, data)| format!("event: {name}\nid: {id}\ndata: {data}\n\n")).collect();
        let expected: Vec<Entry> = entries
            .into_iter()
            .map(|(name, id, data)| Entry { name, id: Some(id), data })
            .collect();
        prop_assert_eq!(read(text.as_bytes(), &sizes), (expected, None));
    }
}
