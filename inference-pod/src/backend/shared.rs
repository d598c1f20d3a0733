//! One session that several threads run at once, so that its weights are in memory once.
//!
//! ONNX Runtime guarantees that several threads may call `Run` of one session at once, but `ort` takes the session for
//! itself while it runs. This file goes around that and does nothing else; docs/adr/0006 says why.
#![allow(unsafe_code, reason = "`ort` has no way to run one session from several threads")]

use std::{
    ffi::CString,
    ptr::{self, NonNull},
};

use ort::{
    AsPointer,
    memory::Allocator,
    session::Session,
    value::{DynValue, Tensor},
};

/// A session, the order of its inputs, and the one output that is asked for.
pub(super) struct SharedSession {
    session: Session,
    inputs: Vec<CString>,
    output: CString,
}

impl SharedSession {
    /// Shares a session that has an output of that name.
    pub(super) fn new(session: Session, output: &str) -> ort::Result<Self> {
        let name = |name: &str| CString::new(name).map_err(|e| ort::Error::new(e.to_string()));
        let inputs = session.inputs().iter().map(|input| name(input.name())).collect::<ort::Result<_>>()?;
        Ok(Self { inputs, output: name(output)?, session })
    }

    /// Runs the network on this thread and gives the output to `read`. There is one value for each input, in the
    /// session's order.
    pub(super) fn run<T>(
        &self,
        inputs: &[Tensor<i64>],
        read: impl FnOnce(&DynValue) -> ort::Result<T>,
    ) -> ort::Result<T> {
        if inputs.len() != self.inputs.len() {
            return Err(ort::Error::new(format!("{} inputs for {}", inputs.len(), self.inputs.len())));
        }
        let names: Vec<_> = self.inputs.iter().map(|name| name.as_ptr()).collect();
        let values: Vec<_> = inputs.iter().map(|value| value.ptr()).collect();
        let mut output = ptr::null_mut();
        // SAFETY: the pointers are to names and values that live until the call returns, as many as is said. No
        // options are given, and one place for one output. The session is not changed by being run, though the
        // signature has it so: ONNX Runtime guarantees that runs may overlap. Our own operator is run by overlapping
        // calls too, though `ort` hands it out to each as if there were no other; it only reads.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                ptr::null(),
                names.as_ptr(),
                values.as_ptr(),
                values.len(),
                &self.output.as_ptr(),
                1,
                &mut output,
            )
        };
        // SAFETY: the status is what the call returned, and is looked at once.
        unsafe { ort::Error::result_from_status(status) }?;
        let output = NonNull::new(output).ok_or_else(|| ort::Error::new("there is no output"))?;
        // SAFETY: a successful run made this value and left it to us. It is released at the end of this function,
        // before the session. The allocator is only kept beside it: releasing goes through the value itself.
        let output = unsafe { DynValue::from_ptr(output, Some(&Allocator::default())) };
        read(&output)
    }
}
