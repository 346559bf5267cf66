//! The PROXY protocol, versions 1 and 2: the header before the first byte of a connection, in which a proxy reports whom the
//! connection is for.
//!
//! Source: haproxy's `doc/proxy-protocol.txt`, revision 2020/03/05.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio_util::either::Either;

use super::socket::ByteStream;
use crate::metrics::ProxyProtocolError;

/// The first bytes of version 1.
const V1: &[u8] = b"PROXY ";
/// The longest header of version 1, with its line end.
const MAX_V1: usize = 107;
/// The first bytes of version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of the fixed part of version 2.
const V2_FIXED: usize = 16;
/// The most bytes after the fixed part. Chosen: nginx has the same limit; addresses take 216 bytes at most, and the TLVs of
/// haproxy and of cloud load balancers a few hundred.
const MAX_V2: usize = 4096;
/// The most bytes that one read takes.
const READ_SIZE: usize = 512;

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Its length in bytes.
    pub(super) length: usize,
    /// Whom the connection is for; `None` if that is the proxy itself (`LOCAL`), or has no IP address (`UNKNOWN`, `AF_UNIX`).
    pub(super) source: Option<SocketAddr>,
}

/// Reads the header of a connection, and nothing that follows it. Returns `None` if the connection ends before its first byte,
/// as connections do that only check a port.
///
/// # Errors
/// Those of the connection; else why there is no valid header.
///
/// # Cancel safety
/// Not safe: bytes that were read are lost.
pub(super) async fn read(stream: &mut ByteStream) -> io::Result<Result<Option<Header>, ProxyProtocolError>> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; READ_SIZE];
        let peeked = peek(stream, &mut buffer).await?;
        if peeked == 0 {
            return Ok(if bytes.is_empty() { Ok(None) } else { Err(ProxyProtocolError::Malformed) });
        }
        let before = bytes.len();
        bytes.extend(buffer.iter().take(peeked));
        let header = match parse(&bytes) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        // An incomplete header does not end within these bytes.
        let consumed = header.map_or(peeked, |header| header.length - before);
        if let Some(buffer) = buffer.get_mut(..consumed) {
            stream.read_exact(buffer).await?;
        }
        if header.is_some() {
            return Ok(Ok(header));
        }
    }
}

/// Waits for bytes, and copies them without consuming them.
async fn peek(stream: &ByteStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut peek = |socket: BorrowedFd<'_>| {
        rustix::net::recv(socket, &mut *buffer, RecvFlags::PEEK).map(|(_, bytes)| bytes).map_err(io::Error::from)
    };
    match stream {
        Either::Left(tcp) => tcp.async_io(Interest::READABLE, || peek(tcp.as_fd())).await,
        Either::Right(unix) => unix.async_io(Interest::READABLE, || peek(unix.as_fd())).await,
    }
}

/// Parses the header at the start of a connection. Returns `None` if it is incomplete.
///
/// # Errors
/// Why there is no valid header.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, ProxyProtocolError> {
    let begins = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, expected)| byte == expected);
    if begins(V2) {
        parse_v2(bytes)
    } else if begins(V1) {
        parse_v1(bytes)
    } else {
        Err(ProxyProtocolError::Missing)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, ProxyProtocolError> {
    let longest = bytes.get(..MAX_V1).unwrap_or(bytes);
    let Some(end) = longest.windows(2).position(|end| end == b"\r\n") else {
        return if bytes.len() < MAX_V1 { Ok(None) } else { Err(ProxyProtocolError::Malformed) };
    };
    let line = bytes.get(V1.len()..end).and_then(|line| std::str::from_utf8(line).ok());
    let line = line.ok_or(ProxyProtocolError::Malformed)?;
    // What follows `UNKNOWN` must be ignored.
    let source = if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        None
    } else {
        Some(source_of_line(line).ok_or(ProxyProtocolError::Malformed)?)
    };
    Ok(Some(Header { length: end + 2, source }))
}

/// Parses a line of version 1 with addresses, without its signature.
fn source_of_line(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ');
    let is_ipv4 = match words.next()? {
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let mut address = || words.next()?.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == is_ipv4);
    let (source, _destination) = (address()?, address()?);
    let mut port = || {
        let port = words.next()?;
        port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse::<u16>().ok())?
    };
    let (source_port, _destination_port) = (port()?, port()?);
    words.next().is_none().then_some(SocketAddr::new(source, source_port))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, ProxyProtocolError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED>() else { return Ok(None) };
    let [.., version_and_command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyProtocolError::Malformed),
    };
    // The address family, then the transport: any, stream or datagram.
    if family >> 4 > 3 || family & 0xf > 2 || length > MAX_V2 {
        return Err(ProxyProtocolError::Malformed);
    }
    let Some(rest) = rest.get(..length) else { return Ok(None) };
    let header = |source| Ok(Some(Header { length: V2_FIXED + length, source }));
    if is_local {
        return header(None);
    }
    // Both addresses, both ports, then TLVs, which are skipped.
    let source = match family {
        0x11 => rest.first_chunk::<12>().map(|&[a, b, c, d, _, _, _, _, high, low, ..]| {
            let address = Ipv4Addr::new(a, b, c, d);
            Some(SocketAddr::new(address.into(), u16::from_be_bytes([high, low])))
        }),
        0x21 => rest.first_chunk::<36>().and_then(|addresses| {
            let (source, rest) = addresses.split_first_chunk::<16>()?;
            let (_destination, ports) = rest.split_first_chunk::<16>()?;
            let port = u16::from_be_bytes(*ports.first_chunk()?);
            Some(Some(SocketAddr::new(Ipv6Addr::from(*source).into(), port)))
        }),
        0x31 => rest.first_chunk::<216>().map(|_paths| None),
        // Unspecified, or not a stream: the addresses say nothing about this connection.
        _ => Some(None),
    };
    source.map_or(Err(ProxyProtocolError::Malformed), header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a header of version 2.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, rest].concat()
    }

    fn source(bytes: &[u8]) -> Result<Option<String>, ProxyProtocolError> {
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "it is complete after {end} bytes");
        }
        let header = parse(bytes)?.expect("it is incomplete");
        assert_eq!(header.length, bytes.len());
        assert_eq!(parse(&[bytes, b"GET / HTTP/1.1\r\n"].concat()), Ok(Some(header)), "what follows changes it");
        Ok(header.source.map(|source| source.to_string()))
    }

    #[test]
    fn version_1_reports_the_source() {
        for (line, expected) in [
            ("PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n", Some("203.0.113.9:4711")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255:65535")),
            ("PROXY TCP6 2001:db8::9 ::1 4711 443\r\n", Some("[2001:db8::9]:4711")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
        ] {
            assert_eq!(source(line.as_bytes()).unwrap().as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn version_2_reports_the_source_and_skips_tlvs() {
        let ipv4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 187];
        let [client, host] = ["2001:db8::9", "::1"].map(|address| address.parse::<Ipv6Addr>().unwrap().octets());
        let ipv6 = [&client[..], &host, &[0x12, 0x67, 1, 187]].concat();
        let tlvs = [4, 0, 2, 0, 0];
        for (header, expected) in [
            (v2(0x21, 0x11, &ipv4), Some("203.0.113.9:4711")),
            (v2(0x21, 0x11, &[&ipv4[..], &tlvs].concat()), Some("203.0.113.9:4711")),
            (v2(0x21, 0x21, &ipv6), Some("[2001:db8::9]:4711")),
            (v2(0x21, 0x31, &[0; 216]), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x21, 0x12, &ipv4), None),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &ipv4), None),
        ] {
            assert_eq!(source(&header).unwrap().as_deref(), expected, "{header:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], ProxyProtocolError::Missing),
            (b"PRI * HTTP/2.0\r\n\r\n", ProxyProtocolError::Missing),
            (b"\x16\x03\x01", ProxyProtocolError::Missing),
            (b"proxy TCP4", ProxyProtocolError::Missing),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n", ProxyProtocolError::Malformed),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443 \r\n", ProxyProtocolError::Malformed),
            (b"PROXY TCP4  203.0.113.9 10.0.0.1 4711 443\r\n", ProxyProtocolError::Malformed),
            (b"PROXY TCP4 2001:db8::9 ::1 4711 443\r\n", ProxyProtocolError::Malformed),
            (b"PROXY TCP6 203.0.113.9 10.0.0.1 4711 443\r\n", ProxyProtocolError::Malformed),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 +471 443\r\n", ProxyProtocolError::Malformed),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 443\r\n", ProxyProtocolError::Malformed),
            (b"PROXY UDP4 203.0.113.9 10.0.0.1 4711 443\r\n", ProxyProtocolError::Malformed),
            (b"PROXY UNKNOWNX\r\n", ProxyProtocolError::Malformed),
            (long.as_bytes(), ProxyProtocolError::Malformed),
            (&v2(0x31, 0x11, &[0; 12]), ProxyProtocolError::Malformed),
            (&v2(0x22, 0x11, &[0; 12]), ProxyProtocolError::Malformed),
            (&v2(0x21, 0x41, &[0; 12]), ProxyProtocolError::Malformed),
            (&v2(0x21, 0x13, &[0; 12]), ProxyProtocolError::Malformed),
            (&v2(0x21, 0x11, &[0; 11]), ProxyProtocolError::Malformed),
            (&v2(0x21, 0x21, &[0; 35]), ProxyProtocolError::Malformed),
            (&v2(0x21, 0x31, &[0; 215]), ProxyProtocolError::Malformed),
            (&v2(0x20, 0x00, &[0; MAX_V2 + 1]), ProxyProtocolError::Malformed),
        ] {
            assert_eq!(parse(bytes), Err(expected), "{}", bytes.escape_ascii());
        }
    }
}
