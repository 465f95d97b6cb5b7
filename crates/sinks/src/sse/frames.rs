//! Events in a file: for each the length of its name and that of its data, four bytes each, the least first, then both.

use aqueduct_net::server::Event;

/// What stands before a name.
const HEAD_BYTES: usize = 8;

/// Adds an event, unless a length has no place in four bytes.
pub(super) fn add(event: &Event<'_>, into: &mut Vec<u8>) -> bool {
    let lengths = (u32::try_from(event.name.len()), u32::try_from(event.data.len()));
    let (Ok(name), Ok(data)) = lengths else { return false };
    into.extend(name.to_le_bytes());
    into.extend(data.to_le_bytes());
    into.extend(event.name.as_bytes());
    into.extend(event.data);
    true
}

/// How many bytes the first event has, as far as these tell.
pub(super) fn first_bytes(bytes: &[u8]) -> Option<u64> {
    let length = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(HEAD_BYTES as u64 + u64::from(length(0)?) + u64::from(length(4)?))
}

/// How many of the bytes are whole events, from the first on.
pub(super) fn whole_bytes(bytes: &[u8]) -> usize {
    let mut whole = 0;
    while let Some(n_bytes) = first_bytes(&bytes[whole..]).and_then(|n_bytes| usize::try_from(n_bytes).ok()) {
        match whole.checked_add(n_bytes) {
            Some(end) if end <= bytes.len() => whole = end,
            _ => break,
        }
    }
    whole
}

/// The events of bytes that are whole ones; nothing, if they are not what [`add`] wrote.
pub(super) fn events(bytes: &[u8]) -> Option<Vec<Event<'_>>> {
    let (mut events, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (event, behind) = rest.split_at_checked(usize::try_from(first_bytes(rest)?).ok()?)?;
        let n_name = usize::try_from(u32::from_le_bytes(event.get(..4)?.try_into().ok()?)).ok()?;
        let (name, data) = event.get(HEAD_BYTES..)?.split_at_checked(n_name)?;
        events.push(Event { name: std::str::from_utf8(name).ok()?, data });
        rest = behind;
    }
    Some(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_as_they_were_and_cut_ones_wait() {
        let all = [("row", "1"), ("", ""), ("ü", "line\nline")];
        let all = all.map(|(name, data)| Event { name, data: data.as_bytes() });
        let mut bytes = Vec::new();
        assert!(all.iter().all(|event| add(event, &mut bytes)));
        assert_eq!(events(&bytes).unwrap(), all);
        for cut in 0..bytes.len() {
            let whole = whole_bytes(&bytes[..cut]);
            let n = events(&bytes[..whole]).unwrap().len();
            assert!(n < 3 && events(&bytes[..whole]).unwrap() == all[..n], "{cut}");
        }
        assert_eq!(events(b"no events"), None);
    }
}
