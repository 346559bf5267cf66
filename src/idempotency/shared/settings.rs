//! Validated settings of the shared store. No serde, no I/O.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::files::SecretSource;

/// The store that replicas share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Where it is.
    pub address: StoreAddress,
    /// The number of the database.
    pub database: u16,
    /// The user; the default user if `None`.
    pub username: Option<String>,
    /// The source of the password, which is read when a connection is opened.
    pub password: Option<SecretSource>,
    /// The CAs of a TLS connection; the system's if `None`.
    pub ca_file: Option<PathBuf>,
    /// How long an operation may take, including a new connection.
    pub timeout: Duration,
    /// What happens to calls with a key while the store is out.
    pub when_out: WhenStoreIsOut,
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAddress {
    /// A host and port.
    Tcp {
        /// The host, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether the connection is TLS.
        tls: bool,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// What happens to calls with a key while the store is out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenStoreIsOut {
    /// They are answered 503, and nothing is sent.
    #[default]
    Refuse,
    /// They are carried out once by each replica.
    Local,
}

/// Why the address of a store is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreAddressError {
    /// It has another scheme.
    #[error("is not a redis://, rediss:// or unix:// address")]
    Scheme,
    /// It contains a user or a password.
    #[error("contains a user or a password, which logs would show")]
    UserInfo,
    /// It has no host, or an invalid one.
    #[error("has no valid host and port")]
    Host,
    /// The database is not a number.
    #[error("has a database that is not a number from 0 to 65535")]
    Database,
}

impl StoreAddress {
    /// Parses `redis://host[:port][/database]`, `rediss://…` or `unix:///path`. Returns the address and the database.
    ///
    /// # Errors
    /// [`StoreAddressError`], which contains no part of the text.
    pub fn parse(text: &str) -> Result<(Self, u16), StoreAddressError> {
        if let Some(path) = text.strip_prefix("unix://") {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            if !path.starts_with('/') {
                return Err(StoreAddressError::Host);
            }
            let database = match query {
                "" => Some(""),
                query => query.strip_prefix("db="),
            };
            return Ok((Self::Unix(path.into()), database_number(database.ok_or(StoreAddressError::Database)?)?));
        }
        let (tls, rest) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => return Err(StoreAddressError::Scheme),
        };
        if rest.contains('@') {
            return Err(StoreAddressError::UserInfo);
        }
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or(StoreAddressError::Host)?;
            (Some(host).filter(|host| host.parse::<std::net::Ipv6Addr>().is_ok()), port)
        } else {
            let (host, port) = authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon));
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            (Some(host).filter(|host| !host.is_empty() && host.bytes().all(is_name)), port)
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => Some(6379),
            None => None,
            Some(port) => port.parse().ok().filter(|port| *port > 0),
        };
        let (Some(host), Some(port)) = (host, port) else { return Err(StoreAddressError::Host) };
        Ok((Self::Tcp { host: host.to_owned(), port, tls }, database_number(database)?))
    }
}

fn database_number(text: &str) -> Result<u16, StoreAddressError> {
    if text.is_empty() { Ok(0) } else { text.parse().map_err(|_not_a_number| StoreAddressError::Database) }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "rediss" } else { "redis" };
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_shown() {
        for (text, shown, database) in [
            ("redis://cache", "redis://cache:6379", 0),
            ("redis://cache:7000/3", "redis://cache:7000", 3),
            ("rediss://cache.example:6380/0", "rediss://cache.example:6380", 0),
            ("redis://[::1]:7000/", "redis://[::1]:7000", 0),
            ("redis://[::1]", "redis://[::1]:6379", 0),
            ("unix:///run/redis.sock", "unix:///run/redis.sock", 0),
            ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock", 2),
        ] {
            let (address, found) = StoreAddress::parse(text).unwrap();
            assert_eq!((address.to_string().as_str(), found), (shown, database), "{text}");
        }
    }

    #[test]
    fn invalid_addresses_are_refused_without_showing_a_password() {
        use StoreAddressError::{Database, Host, Scheme, UserInfo};
        for (text, error) in [
            ("cache:6379", Scheme),
            ("http://cache", Scheme),
            ("redis://user:hunter2@cache", UserInfo),
            ("redis://", Host),
            ("redis://cache:0", Host),
            ("redis://cache:70000", Host),
            ("redis://ca che", Host),
            ("redis://[::1", Host),
            ("redis://[cache]", Host),
            ("unix://run/redis.sock", Host),
            ("redis://cache/x", Database),
            ("redis://cache/65536", Database),
            ("unix:///run/redis.sock?password=x", Database),
        ] {
            assert_eq!(StoreAddress::parse(text), Err(error), "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
