//! An endpoint that calls may be sent to.

use crate::endpoint::EndpointName;

/// An endpoint of a route.
#[derive(Clone, Debug)]
pub struct Target {
    name: EndpointName,
    endpoint_index: usize,
    weight: u32,
    seed: u64,
}

impl Target {
    /// The index of endpoints that are not in use.
    pub(super) const DISABLED: usize = usize::MAX;

    pub(super) fn new(name: EndpointName, endpoint_index: usize, weight: u32, seed: u64) -> Self {
        Self { name, endpoint_index, weight, seed }
    }

    /// Returns the configured name.
    pub fn name(&self) -> &EndpointName {
        &self.name
    }

    /// Returns whether it is in use.
    pub(super) fn is_enabled(&self) -> bool {
        self.endpoint_index != Self::DISABLED
    }

    /// Returns its index among all endpoints that are in use.
    pub fn endpoint_index(&self) -> usize {
        self.endpoint_index
    }

    /// Returns its weight.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }
}
