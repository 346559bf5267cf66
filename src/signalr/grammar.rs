//! Which operation a method and a path are.

/// A call.
#[derive(Clone, Copy, Debug)]
pub struct Call;

/// Not a call.
#[derive(Clone, Copy, Debug)]
pub struct NotACall;
