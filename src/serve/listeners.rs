//! The open listeners, and their replacement by those of another configuration: new ones are bound, unchanged ones continue,
//! removed ones are closed.
//!
//! A [`ListenerId`] identifies a listener for as long as its name, its address and its use of TLS stay the same. The rules of a
//! connection are found by this id, so a connection never gets the rules of another listener after a reload.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::bind::{BindError, BoundAddress, bind, bind_error, is_in_use, set_mode};
use super::caller_address::TrustedProxies;
use super::certificate::ListenerTls;
use super::inherited::InheritedSockets;
use super::live_tls::LiveTls;
use super::settings::{Bind, ListenerSettings, ListenerTlsSettings};
use super::socket::StdListener;
use crate::runbook::{Condition, Section};

/// The id of a listener while its name, its address and its use of TLS stay the same. A listener that is removed and added again
/// has another id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListenerId(u64);

/// The id of the sockets of one address, one for each worker. Another listener at the same address takes them over when their
/// listener is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SocketId(u64);

/// The listener that a socket accepts connections for.
pub(super) struct ServedListener {
    pub(super) id: ListenerId,
    pub(super) tls: Option<Arc<LiveTls>>,
    pub(super) proxy_protocol: Option<Arc<TrustedProxies>>,
    /// Whether the socket outlives this process, because the service manager keeps it.
    pub(super) is_inherited: bool,
}

/// The listeners that are open.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: Vec<OpenListener>,
    /// The last number that a listener or a socket got.
    last_number: u64,
    inherited: InheritedSockets,
}

#[derive(Clone, Debug)]
struct OpenListener {
    id: ListenerId,
    socket: SocketId,
    settings: ListenerSettings,
    address: BoundAddress,
    tls: Option<Arc<LiveTls>>,
    /// Whether the service manager opened its socket, and keeps it.
    is_inherited: bool,
}

/// The planned listeners of another configuration. Nothing is bound yet.
#[derive(Debug)]
pub struct ListenerPlan {
    planned: Vec<Planned>,
    /// The listeners that are open now.
    open: Vec<OpenListener>,
    last_number: u64,
    inherited: InheritedSockets,
}

#[derive(Debug)]
struct Planned {
    id: ListenerId,
    settings: ListenerSettings,
    /// The open listener whose sockets it takes over.
    from: Option<OpenListener>,
}

/// Listeners whose sockets are bound. Dropping it closes the new ones.
pub struct BoundListeners {
    bound: Vec<BoundListener>,
    last_number: u64,
    inherited: InheritedSockets,
}

struct BoundListener {
    open: OpenListener,
    serving: Arc<ServedListener>,
    /// One for each worker; `None` if it takes over open sockets.
    sockets: Option<Vec<StdListener>>,
    /// Whether new connections belong to another listener, or are set up in another way.
    is_changed: bool,
    /// The TLS that is put in force at a listener that continues; `None` keeps what is.
    new_tls: Option<ListenerTls>,
}

/// A command to a worker about its listeners.
pub(super) enum Command {
    /// Accept connections on this socket for this listener.
    Serve { socket: SocketId, new: Option<StdListener>, serving: Arc<ServedListener> },
    /// Close this socket.
    CloseSocket(SocketId),
    /// Drain the connections of this listener.
    DrainConnections(ListenerId),
    /// Respond, which shows that the worker is alive.
    Respond(oneshot::Sender<()>),
}

impl ListenerPlan {
    /// Plans the listeners that a gateway starts with, some of which may have inherited sockets.
    pub fn first(wanted: &[ListenerSettings], inherited: InheritedSockets) -> Self {
        Listeners { inherited, ..Listeners::default() }.plan(wanted)
    }

    /// Returns the listeners' ids, in configured order.
    pub fn ids(&self) -> Vec<ListenerId> {
        self.planned.iter().map(|planned| planned.id).collect()
    }

    /// Binds the new listeners and reads the TLS files that the configuration names for the first time. A listener that continues
    /// with the same files keeps its TLS: what they contain is no matter of the configuration.
    ///
    /// # Errors
    /// [`BindError`] for the first that cannot be set up. Open listeners stay unchanged; new ones are closed.
    pub fn bind(self, workers: usize) -> Result<BoundListeners, BindError> {
        let Self { planned, open, mut last_number, inherited } = self;
        let assigned = inherited.assign(planned.iter().map(|planned| &planned.settings));
        let is_kept = |socket: SocketId| {
            planned.iter().any(|planned| planned.from.as_ref().is_some_and(|from| from.socket == socket))
        };
        let (kept, closing): (Vec<&OpenListener>, Vec<_>) = open.iter().partition(|open| is_kept(open.socket));
        let overlaps_own = |bind: &Bind| {
            closing.iter().any(|open| open.conflicts_with(bind)) && !kept.iter().any(|open| open.conflicts_with(bind))
        };
        let mut bound = Vec::with_capacity(planned.len());
        for (Planned { id, settings, from }, assigned) in planned.iter().zip(assigned) {
            let (id, settings, from) = (*id, settings.clone(), from.clone());
            let before = from.as_ref().filter(|from| from.id == id);
            let (tls, new_tls) =
                settings.tls.as_ref().map_or(Ok((None, None)), |tls| set_up_tls(&settings.name, tls, before))?;
            let is_same =
                |from: &OpenListener| from.id == id && from.settings.proxy_protocol == settings.proxy_protocol;
            let is_changed = !from.as_ref().is_some_and(is_same);
            let is_inherited = from.as_ref().map_or(assigned.is_some(), |from| from.is_inherited);
            let (socket, address, sockets) = if let Some(from) = from {
                (from.socket, from.address, None)
            } else {
                let (address, sockets) = match assigned {
                    Some(index) => duplicate(&inherited, index, &settings, workers)?,
                    None => bind(&settings, workers, overlaps_own(&settings.bind))?,
                };
                last_number += 1;
                (SocketId(last_number), address, Some(sockets))
            };
            let (proxy_protocol, tls_served) = (settings.proxy_protocol.clone(), tls.clone());
            let serving = Arc::new(ServedListener { id, tls: tls_served, proxy_protocol, is_inherited });
            bound.push(BoundListener {
                open: OpenListener { id, socket, settings, address, tls, is_inherited },
                serving,
                sockets,
                is_changed,
                new_tls,
            });
        }
        change_modes(&bound, &open)?;
        Ok(BoundListeners { bound, last_number, inherited })
    }
}

/// Sets up the TLS of a listener. Returns it, and what is put in force if it continues from `before`.
fn set_up_tls(
    listener: &str,
    settings: &ListenerTlsSettings,
    before: Option<&OpenListener>,
) -> Result<(Option<Arc<LiveTls>>, Option<ListenerTls>), BindError> {
    let live = before.and_then(|before| Some((before.tls.as_ref()?, before.settings.tls.as_ref()?)));
    let error = |source| BindError::tls(listener, settings, source);
    let (tls, new_tls) = match live {
        Some((live, same)) if same == settings => (Arc::clone(live), None),
        Some((live, _other)) => (Arc::clone(live), Some(LiveTls::read(listener, settings).map_err(error)?)),
        None => (LiveTls::load(listener, settings).map_err(error)?, None),
    };
    Ok((Some(tls), new_tls))
}

impl BoundListeners {
    /// Returns the TLS of the listeners that have it.
    pub fn tls(&self) -> Vec<Arc<LiveTls>> {
        self.bound.iter().filter_map(|bound| bound.open.tls.clone()).collect()
    }

    /// Describes the inherited sockets that neither a listener nor the admin listener uses.
    pub(super) fn unused_sockets(&self, admin: Option<BoundAddress>) -> Vec<String> {
        self.inherited.unused(&self.addresses().into_iter().chain(admin).collect::<Vec<_>>())
    }

    /// Returns the addresses of the listeners, in configured order.
    pub fn addresses(&self) -> Vec<BoundAddress> {
        self.bound.iter().map(|bound| bound.open.address.clone()).collect()
    }
}

impl std::fmt::Debug for BoundListeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundListeners").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

impl OpenListener {
    /// Returns whether binding this address would fail because of it.
    fn conflicts_with(&self, bind: &Bind) -> bool {
        match self.address {
            BoundAddress::Tcp(open) => Bind::Tcp(open).overlaps(bind),
            BoundAddress::Unix(_) => self.address.is_at(bind),
        }
    }
}

impl Listeners {
    pub(super) fn plan(&self, wanted: &[ListenerSettings]) -> ListenerPlan {
        let mut last_number = self.last_number;
        // Each socket is assigned to one listener, preferably to the one that has it now.
        let is_kept = |open: &OpenListener| wanted.iter().any(|wanted| is_same(&open.settings, wanted));
        let planned = wanted.iter().map(|settings| {
            let same = self.open.iter().find(|open| is_same(&open.settings, settings));
            let from =
                same.or_else(|| self.open.iter().find(|open| open.address.is_at(&settings.bind) && !is_kept(open)));
            let id = same.map_or_else(
                || {
                    last_number += 1;
                    ListenerId(last_number)
                },
                |same| same.id,
            );
            Planned { id, settings: settings.clone(), from: from.cloned() }
        });
        let planned = planned.collect();
        ListenerPlan { planned, open: self.open.clone(), last_number, inherited: self.inherited.clone() }
    }

    /// Removes the paths of Unix sockets that nothing listens on: those of this process once it has closed them, unless another
    /// process has taken them over.
    pub(super) fn remove_sockets(&self) {
        for listener in self.open.iter().filter(|listener| !listener.is_inherited) {
            if let BoundAddress::Unix(path) = &listener.address
                && is_in_use(path).is_ok_and(|is_in_use| !is_in_use)
            {
                remove_socket(path);
            }
        }
    }

    /// Replaces the open listeners, and returns the commands for each worker.
    pub(super) fn replace(&mut self, bound: BoundListeners, workers: usize) -> Vec<Vec<Command>> {
        let mut commands: Vec<Vec<Command>> = (0..workers).map(|_| Vec::new()).collect();
        let mut open = Vec::with_capacity(bound.bound.len());
        for BoundListener { open: listener, serving, sockets, is_changed, new_tls } in bound.bound {
            if let (Some(tls), Some(settings), Some(new_tls)) = (&listener.tls, &listener.settings.tls, new_tls) {
                tls.put_in_force(settings, new_tls);
            }
            let mut sockets = sockets;
            for commands in &mut commands {
                let new = sockets.as_mut().and_then(Vec::pop);
                if is_changed {
                    commands.push(Command::Serve { socket: listener.socket, new, serving: Arc::clone(&serving) });
                }
            }
            open.push(listener);
        }
        let is_closed = |old: &&OpenListener| !open.iter().any(|new| new.socket == old.socket);
        for old in self.open.iter().filter(is_closed) {
            for commands in &mut commands {
                commands.push(Command::CloseSocket(old.socket));
            }
            let is_replaced = open.iter().any(|new| new.address == old.address);
            if let BoundAddress::Unix(path) = &old.address
                && !is_replaced
                && !old.is_inherited
            {
                remove_socket(path);
            }
        }
        for old in self.open.iter().filter(|old| !open.iter().any(|new| new.id == old.id)) {
            for commands in &mut commands {
                commands.push(Command::DrainConnections(old.id));
            }
        }
        self.open = open;
        self.last_number = bound.last_number;
        self.inherited = bound.inherited;
        commands
    }
}

/// Returns the address of the inherited socket of a listener, and a duplicate of the socket for each worker.
fn duplicate(
    inherited: &InheritedSockets,
    index: usize,
    settings: &ListenerSettings,
    workers: usize,
) -> Result<(BoundAddress, Vec<StdListener>), BindError> {
    let duplicated = inherited.duplicate(index, workers);
    let (address, sockets) =
        duplicated.map_err(|source| bind_error(settings, &"the socket of the service manager", source))?;
    let listener = &settings.name;
    if address.is_at(&settings.bind) {
        tracing::info!(listener, %address, "the listener has a socket of the service manager");
    } else {
        let section = Section::Condition(Condition::ServiceManager);
        tracing::warn!(
            listener,
            %address,
            side = "configuration",
            remedy = section.remedy(),
            runbook = %section,
            "the listener has the socket of the service manager with its name, whose address is not that of `bind`"
        );
    }
    Ok((address, sockets))
}

/// Returns whether two settings describe the same listener. Its connections then continue under the new rules. The certificate
/// and the PROXY protocol may differ.
fn is_same(one: &ListenerSettings, other: &ListenerSettings) -> bool {
    one.name == other.name && one.bind == other.bind && one.tls.is_some() == other.tls.is_some()
}

/// Changes the modes of all Unix sockets that are taken over, or of none.
fn change_modes(bound: &[BoundListener], open: &[OpenListener]) -> Result<(), BindError> {
    let mut changed = Vec::new();
    for bound in bound {
        let Some(before) = open.iter().find(|open| open.socket == bound.open.socket) else { continue };
        let (Bind::Unix { path, mode }, Bind::Unix { mode: old, .. }) =
            (&bound.open.settings.bind, &before.settings.bind)
        else {
            continue;
        };
        if mode == old || before.is_inherited {
            continue;
        }
        if let Err(source) = set_mode(path, *mode) {
            for (path, old) in changed {
                let _restored = set_mode(path, old);
            }
            let (listener, address) = (bound.open.settings.name.clone(), path.display().to_string());
            return Err(BindError::Bind { listener, address, source });
        }
        changed.push((path, *old));
    }
    Ok(())
}

/// Removes the path of a closed Unix socket, unless it is meanwhile another file.
fn remove_socket(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && let Err(err) = std::fs::remove_file(path) {
        let section = Section::Condition(Condition::SocketFile);
        tracing::warn!(error = %err, path = %path.display(), side = "gateway", remedy = section.remedy(), runbook = %section, "the socket of a closed listener cannot be removed");
    }
}

#[cfg(test)]
#[path = "listeners_tests.rs"]
mod tests;
