//! Waking a loop by a descriptor: it watches one end of a pair of sockets, and a byte is written to the other.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use pyo3::prelude::*;

use super::Watch;
use super::way::Way;

/// A pair of sockets, one of which the loop watches.
pub(super) struct Descriptor {
    reader: UnixStream,
    writer: UnixStream,
}

/// Has the loop watch a new pair.
pub(super) fn open(event_loop: &Bound<'_, PyAny>, watch: &Bound<'_, Watch>) -> PyResult<Descriptor> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    event_loop.call_method1("add_reader", (reader.as_raw_fd(), watch))?;
    Ok(Descriptor { reader, writer })
}

impl Way for Descriptor {
    fn wake(&self) {
        // A full socket has bytes that the loop has not read yet: it will come.
        let _ = (&self.writer).write(&[1]);
    }

    fn woken(&self) {
        // What there was to read does not matter, nor whether another reading took it.
        let _ = (&self.reader).read(&mut [0; 64]);
    }

    fn leave(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        event_loop.call_method1("remove_reader", (self.reader.as_raw_fd(),)).map(drop)
    }
}
