//! The hubs of one endpoint by name. Names are compared case-insensitively.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connection::Connection;
use super::hub::Hub;
use super::membership::GroupTtl;

/// The hubs of one endpoint. A hub is created on first use.
#[derive(Debug, Default)]
pub struct Hubs(Mutex<HashMap<String, Arc<Hub>>>);

impl Hubs {
    /// Returns the hub with this name. Creates it if it does not exist.
    pub(crate) fn get_or_create(&self, name: &str) -> Arc<Hub> {
        Arc::clone(self.hubs().entry(name.to_ascii_lowercase()).or_default())
    }

    /// Returns the hub with this name. If it does not exist, returns an empty hub without storing it.
    pub(crate) fn get_or_empty(&self, name: &str) -> Arc<Hub> {
        self.hubs().get(&name.to_ascii_lowercase()).map(Arc::clone).unwrap_or_default()
    }

    /// Creates a hub and adds users, which need not be connected, to groups.
    pub(crate) fn add_users(&self, name: &str, users: &[(String, Vec<String>)], now: Instant) {
        let hub = self.get_or_create(name);
        for (user, groups) in users {
            for group in groups {
                hub.add_user(user, group, GroupTtl::Unlimited, now);
            }
        }
    }

    /// Connects a client to a hub, as `user` if given.
    pub fn connect(&self, hub: &str, user: Option<&str>) -> Connection {
        Connection::open(&self.get_or_create(hub), user, Instant::now())
    }

    /// Returns how many connections each hub has.
    pub fn connection_counts(&self) -> BTreeMap<String, usize> {
        self.hubs().iter().map(|(name, hub)| (name.clone(), hub.connection_count())).collect()
    }

    fn hubs(&self) -> MutexGuard<'_, HashMap<String, Arc<Hub>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
