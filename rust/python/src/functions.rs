//! What Python brings along to run functions.

use pyo3::prelude::*;

/// The classes and functions of the package that calls need.
pub(crate) struct Functions {
    /// The class `Event`.
    pub(crate) event: Py<PyAny>,
    /// Starts a list of `Call`s.
    pub(crate) start: Py<PyAny>,
    /// Starts a `Generation`.
    pub(crate) generate: Py<PyAny>,
    /// Ends a generator, or the calls of a class, by their key.
    pub(crate) abandon: Py<PyAny>,
    /// Hears that the loop has ended, and whether that was noticed by something that has to run.
    pub(crate) ended: Py<PyAny>,
    /// Says what a client may know of an exception.
    pub(crate) mask: Py<PyAny>,
    /// Converters of the coerced arguments of fields below the root, by `Type.field`; where there is none they stay.
    pub(crate) nested: Py<PyAny>,
}
