use super::*;
use crate::event::Audience;
use crate::value::Value;

fn event(channel: &str, published_at: DateTime<Utc>) -> Event {
    Event {
        id: Event::new_id(),
        event_type: "e".into(),
        channel: channel.into(),
        audience: Audience::Tenant(None),
        source: None,
        published_at,
        data: Value::Null,
        size: 4,
        previous: None,
        position: Position::default(),
    }
}

#[test]
fn channels_that_nobody_watches_are_forgotten_an_hour_after_their_last_event() {
    let bus = MemoryBus::new(10);
    let start = DateTime::UNIX_EPOCH;
    let publish = |channel: &str, at| drop(bus.publish(vec![event(channel, at)]));
    let before = Position { epoch: bus.epoch, offset: 0 };
    let read = |channel: &str, after| bus.page(channel, after, 100).map(|page| page.events.len());
    bus.watch(&"watched".into());
    for channel in ["old", "watched", "busy"] {
        publish(channel, start);
    }
    publish("busy", start + AGE / 2);
    publish("new", start + AGE);
    assert_eq!(
        ["old", "watched", "busy", "new", "none"].map(|channel| read(channel, before)),
        [Ok(1), Ok(1), Ok(2), Ok(1), Ok(0)]
    );
    publish("new", start + AGE + TimeDelta::seconds(1));
    assert_eq!(["old", "none"].map(|channel| read(channel, before)), [(); 2].map(|()| Err(BusError::HistoryLost)));
    // What came after it was forgotten is there, also on a channel that begins anew.
    let after = Position { offset: 1, ..before };
    assert_eq!(["old", "none"].map(|channel| read(channel, after)), [Ok(0), Ok(0)]);
    assert_eq!(["watched", "busy", "new"].map(|channel| read(channel, before)), [Ok(1), Ok(2), Ok(2)]);
    // One that is not watched any more goes as the others do.
    bus.unwatch(&"watched".into());
    publish("new", start + AGE + TimeDelta::seconds(2));
    assert_eq!(read("watched", before), Err(BusError::HistoryLost));
    assert_eq!((read("busy", before), bus.state.lock().channels.len()), (Ok(2), 2));
}
