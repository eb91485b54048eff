//! `fraiseql_subs._core`: thin bindings over the engine. Convert, call, wake; no logic of its own.
//!
//! In reading order: [`core`] is the manager's native half, [`convert`] turns Python values into the engine's and back,
//! [`wake`] brings work onto event loops, [`stream`] and [`socket`] are the two kinds of readers, [`calls`], [`reading`] and [`read`]
//! run functions and read what they return; [`functions`] says what clients are told of exceptions. [`admin`] is for operators.

use pyo3::prelude::*;

mod admin;
mod bus;
mod calls;
mod convert;
mod core;
mod errors;
mod functions;
mod publishing;
mod read;
mod reading;
mod run;
mod runtime;
mod socket;
mod stream;
mod trail;
mod viewer;
mod wake;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    runtime::register(module)?;
    module.add_function(wrap_pyfunction!(bus::check_bus, module)?)?;
    module.add_function(wrap_pyfunction!(publishing::channel_name, module)?)?;
    module.add_class::<core::Schema>()?;
    module.add_class::<core::Core>()?;
    module.add_class::<stream::Subscription>()?;
    module.add_class::<socket::Socket>()?;
    module.add_class::<calls::Call>()?;
    module.add_class::<calls::Generation>()?;
    module.add_class::<reading::Reading>()?;
    module.add_function(wrap_pyfunction!(admin::postgres_sql, module)?)?;
    module.add_function(wrap_pyfunction!(admin::postgres_install, module)?)?;
    module.add_function(wrap_pyfunction!(admin::postgres_track, module)?)?;
    module.add_function(wrap_pyfunction!(admin::postgres_untrack, module)?)?;
    module.add_function(wrap_pyfunction!(admin::postgres_prune, module)?)?;
    Ok(())
}
