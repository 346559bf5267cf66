//! Executes the operations of the REST API on a hub. The request must be authorized.
//!
//! Source: the data-plane swaggers v1 and 2024-12-01. Status and `x-ms-error-code` if a connection, user or group does not
//! exist: the official emulator, and the statuses that the official SDK accepts.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rmpv::Value;
use serde_json::json;

use super::authentication::{Claim, RefreshError, parse_time};
use super::delivery::{Close, Delivery};
use super::endpoint::Endpoint;
use super::filter::Filter;
use super::hub::{Command, Hub};
use super::membership::{GroupTtl, Selector};
use super::message::{self, Content, Invocation, Message, PayloadError};
use super::operation::HubOperation;
use super::parameters;
use super::problem::{ERROR_CODE, PathForm, Problem};
use crate::sandbox::server::exchange::{ReceivedRequest, Reply};

/// The timeout of an invocation. That of the service is not documented; this is the SDK's default for client results.
const INVOKE_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum value of a parameter of type `int32`.
const MAX_INT32: u32 = i32::MAX as u32;

/// The maximum page size of a list. Source: `maxpagesize` in the swagger.
const MAX_PAGE: u32 = 200;

/// The characters of a query value that are percent-encoded.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A call to a hub.
pub(crate) struct HubCall<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) request: &'a ReceivedRequest,
    pub(crate) form: PathForm,
    pub(crate) hub: &'a str,
}

impl HubCall<'_> {
    /// Executes the operation.
    pub(crate) async fn execute_operation(&self, operation: HubOperation, at: SystemTime) -> Result<Reply, Problem> {
        use HubOperation as Op;
        let now = Instant::now();
        let name = parameters::hub_name(self.request, self.hub, self.form)?;
        // Only this operation stores state for users that are not connected, so only it creates the hub.
        let hub = if matches!(operation, Op::UserAddToGroup { .. }) {
            self.endpoint.hubs.get_or_create(&name)
        } else {
            self.endpoint.hubs.get_or_empty(&name)
        };
        match operation {
            Op::Send => self.send(&hub, Selector::All, now),
            Op::CloseConnections => Ok(self.close(&hub, Selector::All, now)),
            Op::Execute => self.execute(&hub, now),
            Op::GenerateToken => self.generate_token(&name, at),
            Op::ConnectionExists { connection } => {
                let exists = hub.exists(Selector::Connection(parameters::connection(&connection)?), now);
                Ok(existence_reply(exists, "Warning.Connection.NotExisted"))
            }
            Op::ConnectionClose { connection } => {
                let selector = Selector::Connection(parameters::connection(&connection)?);
                let closed = hub.close(selector, &[], &self.close_reason(), now);
                Ok(success(self.status(StatusCode::ACCEPTED, StatusCode::OK)).verdict(format!("closed {closed}")))
            }
            Op::ConnectionSend { connection } => {
                self.send(&hub, Selector::Connection(parameters::connection(&connection)?), now)
            }
            Op::ConnectionInvoke { connection } => self.invoke(&hub, parameters::connection(&connection)?, now).await,
            Op::ConnectionRefreshAuth => self.refresh_auth(&hub),
            Op::ConnectionClaims => self.claims(&hub),
            Op::ConnectionLeaveAllGroups { connection } => {
                let exists = hub.remove_connection_from_all(parameters::connection(&connection)?);
                Ok(success(StatusCode::OK).verdict(if exists { "left all groups" } else { "no such connection" }))
            }
            Op::StreamSend { connection, stream } => self.stream_send(&hub, &connection, &stream, now),
            Op::StreamComplete { connection, stream } => self.stream_complete(&hub, &connection, &stream, now),
            Op::GroupExists { group } => {
                let exists = hub.exists(Selector::Group(parameters::group(&group)?), now);
                Ok(existence_reply(exists, "Warning.Group.NotExisted"))
            }
            Op::GroupSend { group } => self.send(&hub, Selector::Group(parameters::group(&group)?), now),
            Op::GroupCloseConnections { group } => {
                Ok(self.close(&hub, Selector::Group(parameters::group(&group)?), now))
            }
            Op::GroupListConnections { group } => self.list(&hub, parameters::group(&group)?, now),
            Op::GroupAddConnection { group, connection } => {
                group_change_reply(hub.add_connection(parameters::connection(&connection)?, parameters::group(&group)?))
            }
            Op::GroupRemoveConnection { group, connection } => group_change_reply(
                hub.remove_connection(parameters::connection(&connection)?, parameters::group(&group)?),
            ),
            Op::UserExists { user } => {
                let exists = hub.exists(Selector::User(parameters::user(&user)?), now);
                Ok(existence_reply(exists, "Warning.User.NotExisted"))
            }
            Op::UserSend { user } => self.send(&hub, Selector::User(parameters::user(&user)?), now),
            Op::UserCloseConnections { user } => Ok(self.close(&hub, Selector::User(parameters::user(&user)?), now)),
            Op::UserLeaveAllGroups { user } => {
                hub.remove_user_from_all(parameters::user(&user)?);
                Ok(Reply::empty(self.status(StatusCode::OK, StatusCode::NO_CONTENT)))
            }
            Op::UserInGroup { user, group } => {
                let exists = hub.user_in_group(parameters::user(&user)?, parameters::group(&group)?, now);
                Ok(existence_reply(exists, "Info.User.NotInGroup"))
            }
            Op::UserAddToGroup { user, group } => {
                hub.add_user(parameters::user(&user)?, parameters::group(&group)?, self.group_ttl()?, now);
                Ok(success(self.status(StatusCode::ACCEPTED, StatusCode::OK)))
            }
            Op::UserRemoveFromGroup { user, group } => {
                hub.remove_user(parameters::user(&user)?, parameters::group(&group)?);
                Ok(Reply::empty(self.status(StatusCode::ACCEPTED, StatusCode::NO_CONTENT)))
            }
        }
    }

    fn send(&self, hub: &Hub, selector: Selector<'_>, now: Instant) -> Result<Reply, Problem> {
        let message = Arc::new(self.message()?);
        let excluded = match selector {
            // A send to a user or a connection has no parameter `excluded`.
            Selector::User(_) | Selector::Connection(_) => Vec::new(),
            Selector::All | Selector::Group(_) => self.request.query_values("excluded"),
        };
        let reached = hub.send(selector, &message, &excluded, now);
        Ok(success(StatusCode::ACCEPTED).verdict(format!("sent to {reached}")))
    }

    fn close(&self, hub: &Hub, selector: Selector<'_>, now: Instant) -> Reply {
        let closed = hub.close(selector, &self.request.query_values("excluded"), &self.close_reason(), now);
        Reply::empty(StatusCode::NO_CONTENT).verdict(format!("closed {closed}"))
    }

    async fn invoke(&self, hub: &Arc<Hub>, connection: &str, now: Instant) -> Result<Reply, Problem> {
        const NOT_CONNECTED: Problem = Problem::NotFound("Warning.Connection.NotExisted");
        let message = Arc::new(self.message()?);
        if message.invocation().is_none() {
            return Err(Problem::InvalidArgument("payload", String::from("The frames do not invoke a client method.")));
        }
        let mut pending = hub.invoke(connection, message, now).ok_or(NOT_CONNECTED)?;
        match tokio::time::timeout(INVOKE_TIMEOUT, pending.completion()).await {
            Ok(Some(Ok(value))) => {
                Ok(Reply::json(StatusCode::OK, &json!({ "result": message::to_json(&value) })).verdict("completed"))
            }
            Ok(Some(Err(error))) => Err(Problem::ClientError(error)),
            Ok(None) => Err(NOT_CONNECTED),
            Err(_) => Err(Problem::ClientTimeout),
        }
    }

    fn refresh_auth(&self, hub: &Hub) -> Result<Reply, Problem> {
        let (token, body) = self.connection_token()?;
        let expires = match body.get("expireTime") {
            None | Some(serde_json::Value::Null) => None,
            Some(time) => Some(time.as_str().and_then(parse_time).ok_or_else(|| {
                Problem::InvalidArgument("expireTime", String::from("The expiry is not a time of RFC 3339."))
            })?),
        };
        let claims = match body.get("claims") {
            None | Some(serde_json::Value::Null) => None,
            Some(claims) => Some(parse_claims(claims).ok_or_else(|| {
                Problem::InvalidArgument("claims", String::from("The claims are no list of types and values."))
            })?),
        };
        match hub.refresh(&token, expires, claims) {
            Ok(claims) => Ok(claims_reply(&claims).verdict("refreshed")),
            Err(RefreshError::NotFound) => Err(Problem::ConnectionNotFound),
            Err(RefreshError::UserMismatch) => Err(Problem::UserMismatch),
        }
    }

    fn claims(&self, hub: &Hub) -> Result<Reply, Problem> {
        let (token, _) = self.connection_token()?;
        let claims = hub.claims(&token).ok_or(Problem::ConnectionNotFound)?;
        Ok(claims_reply(&claims).verdict("claims returned"))
    }

    /// Returns the connection token in the body, and the body.
    fn connection_token(&self) -> Result<(String, serde_json::Value), Problem> {
        parameters::check_claims_version(self.request)?;
        let body: serde_json::Value = serde_json::from_slice(&self.request.body)
            .map_err(|err| Problem::InvalidArgument("body", format!("The body is not JSON: {err}.")))?;
        let token = body.get("connectionToken").and_then(serde_json::Value::as_str).filter(|token| !token.is_empty());
        let missing = || Problem::InvalidArgument("connectionToken", String::from("The connection token is missing."));
        Ok((token.ok_or_else(missing)?.to_owned(), body))
    }

    fn stream_send(&self, hub: &Hub, connection: &str, stream: &str, now: Instant) -> Result<Reply, Problem> {
        let (connection, stream) = (parameters::connection(connection)?, parameters::stream(stream)?.to_owned());
        let last = parameters::flag(self.request, "completed")?;
        let mut reached = true;
        // The swagger declares no request body, so a stream can end without another item.
        if !(last && self.request.body.is_empty()) {
            let item = message::json_value(&self.request.body)?;
            reached = hub.deliver(connection, &Delivery::StreamItem { stream: stream.clone(), item }, now);
        }
        if last {
            reached &= hub.deliver(connection, &Delivery::StreamEnd { stream, error: None }, now);
        }
        Ok(success(StatusCode::ACCEPTED).verdict(format!("sent to {}", u8::from(reached))))
    }

    fn stream_complete(&self, hub: &Hub, connection: &str, stream: &str, now: Instant) -> Result<Reply, Problem> {
        let (connection, stream) = (parameters::connection(connection)?, parameters::stream(stream)?.to_owned());
        // The swagger declares `reason`; the SDK sends `error`.
        let error = self.request.query_value("reason").or_else(|| self.request.query_value("error"));
        let reached = hub.deliver(connection, &Delivery::StreamEnd { stream, error }, now);
        Ok(success(StatusCode::ACCEPTED).verdict(format!("sent to {}", u8::from(reached))))
    }

    fn execute(&self, hub: &Hub, now: Instant) -> Result<Reply, Problem> {
        let filter = self.request.query_value("filter").filter(|filter| !filter.trim().is_empty());
        let filter = filter.map(|filter| Filter::parse(&filter)).transpose();
        let filter = filter.map_err(|err| Problem::InvalidArgument("filter", err.to_string()))?;
        if !message::is_json(self.request.header("content-type")) {
            return Err(Problem::UnsupportedMediaType(String::from("The content type must be application/json.")));
        }
        let body = message::json_value(&self.request.body)?;
        let commands =
            body.as_array().and_then(|commands| commands.iter().map(parse_command).collect::<Option<Vec<_>>>());
        let invalid = || Problem::InvalidArgument("commands", String::from("The commands are invalid."));
        let reached = hub.execute(filter.as_ref(), &commands.ok_or_else(invalid)?, now);
        Ok(Reply::empty(StatusCode::ACCEPTED).verdict(format!("executed on {reached}")))
    }

    fn generate_token(&self, hub: &str, at: SystemTime) -> Result<Reply, Problem> {
        let minutes = parameters::number(self.request, "minutesToExpire", 1..=MAX_INT32)?.unwrap_or(60);
        let user = self.request.query_value("userId");
        let audience = format!("{}/client/?hub={}", self.endpoint.url(), hub.to_ascii_lowercase());
        let lifetime = Duration::from_secs(u64::from(minutes) * 60);
        let token = self.endpoint.keys().client_token(&audience, user.as_deref(), lifetime, at);
        let token = token.map_err(|err| Problem::Internal(err.to_string()))?;
        Ok(Reply::json(StatusCode::OK, &json!({ "token": token })).verdict("client token issued"))
    }

    fn list(&self, hub: &Hub, group: &str, now: Instant) -> Result<Reply, Problem> {
        let top = parameters::number(self.request, "top", 1..=MAX_INT32)?;
        let page_size = parameters::number(self.request, "maxpagesize", 1..=MAX_PAGE)?.unwrap_or(MAX_PAGE);
        let limit = top.map_or(page_size, |top| page_size.min(top));
        let after = self.request.query_value("continuationToken");
        let page = hub.list(group, after.as_deref(), limit as usize, now);
        let members = page.members.iter().map(|(id, user)| match user {
            Some(user) => json!({ "connectionId": id, "userId": user }),
            None => json!({ "connectionId": id }),
        });
        let mut body = json!({ "value": members.collect::<Vec<_>>() });
        let remaining = top.map(|top| top - limit);
        let last = page.members.last().filter(|_| page.more && remaining != Some(0));
        if let (Some((last, _)), Some(fields)) = (last, body.as_object_mut()) {
            fields.insert(String::from("nextLink"), self.next_link(last, remaining).into());
        }
        Ok(Reply::json(StatusCode::OK, &body).verdict(format!("listed {}", page.members.len())))
    }

    /// Returns the absolute URL of the next page.
    fn next_link(&self, last: &str, top: Option<u32>) -> String {
        let encode = |value: &str| utf8_percent_encode(value, QUERY_VALUE).to_string();
        let mut query: Vec<String> = Vec::new();
        for (key, value) in self.request.query_pairs() {
            let value = match (key.to_ascii_lowercase().as_str(), top) {
                ("continuationtoken", _) => continue,
                ("top", Some(top)) => top.to_string(),
                _ => value.into_owned(),
            };
            query.push(format!("{}={}", encode(&key), encode(&value)));
        }
        query.push(format!("continuationToken={}", encode(last)));
        format!("{}{}?{}", self.endpoint.url(), self.request.path, query.join("&"))
    }

    fn message(&self) -> Result<Message, Problem> {
        Ok(Message::parse(self.request.header("content-type"), &self.request.body)?)
    }

    fn close_reason(&self) -> Close {
        // As in the official emulator, the client may reconnect.
        Close { reason: self.request.query_value("reason"), allow_reconnect: true }
    }

    fn group_ttl(&self) -> Result<GroupTtl, Problem> {
        Ok(match parameters::number(self.request, "ttl", 0..=MAX_INT32)? {
            None => GroupTtl::Unlimited,
            Some(0) => GroupTtl::CurrentConnections,
            Some(seconds) => GroupTtl::Limited(Duration::from_secs(u64::from(seconds))),
        })
    }

    /// Returns the status for the path form of the call.
    fn status(&self, v1: StatusCode, current: StatusCode) -> StatusCode {
        match self.form {
            PathForm::V1 => v1,
            PathForm::Current => current,
        }
    }
}

impl From<PayloadError> for Problem {
    fn from(err: PayloadError) -> Self {
        match err {
            PayloadError::ContentType => Self::UnsupportedMediaType(err.to_string()),
            PayloadError::Malformed(..) | PayloadError::Shape => Self::InvalidArgument("payload", err.to_string()),
        }
    }
}

/// Returns the response to adding a connection to a group or removing it. The connection must exist.
fn group_change_reply(exists: bool) -> Result<Reply, Problem> {
    if exists { Ok(success(StatusCode::OK)) } else { Err(Problem::NotFound("Error.Connection.NotExisted")) }
}

/// Returns a success with an empty `ServiceResponse`, as in the swagger's examples.
fn success(status: StatusCode) -> Reply {
    Reply::json(status, &json!({}))
}

/// Parses the claims in a body.
fn parse_claims(claims: &serde_json::Value) -> Option<Vec<Claim>> {
    let text = |claim: &serde_json::Value, key: &str| Some(claim.get(key)?.as_str()?.to_owned());
    claims.as_array()?.iter().map(|claim| Some((text(claim, "type")?, text(claim, "value")?))).collect()
}

/// Returns a response with the claims of a connection.
fn claims_reply(claims: &[Claim]) -> Reply {
    let claims = claims.iter().map(|(name, value)| json!({ "type": name, "value": value }));
    Reply::json(StatusCode::OK, &json!({ "claims": claims.collect::<Vec<_>>() }))
}

/// Returns the response to an existence check, which never has a body.
fn existence_reply(exists: bool, code: &'static str) -> Reply {
    if exists {
        return Reply::empty(StatusCode::OK).verdict("exists");
    }
    Reply::empty(StatusCode::NOT_FOUND).header(ERROR_CODE, code).verdict(code)
}

/// Parses a command of `:execute`.
fn parse_command(value: &Value) -> Option<Command> {
    let fields = value.as_map()?;
    let field = |name: &str| {
        let named = |(key, _): &&(Value, Value)| key.as_str().is_some_and(|key| key.eq_ignore_ascii_case(name));
        fields.iter().find(named).map(|(_, value)| value)
    };
    let group = || parameters::group(field("group")?.as_str()?).ok().map(str::to_owned);
    match field("type")?.as_str()? {
        "SendMessage" => {
            let invocation = Invocation::from_value(field("message")?.clone()).ok()?;
            let size = value.to_string().len();
            Some(Command::Send(Arc::new(Message::new(Content::from(invocation), size))))
        }
        "JoinGroup" => group().map(Command::Join),
        "LeaveGroup" => group().map(Command::Leave),
        "CloseConnection" => {
            let reason = match field("reason") {
                None | Some(Value::Nil) => None,
                Some(reason) => Some(reason.as_str()?.to_owned()),
            };
            Some(Command::Close(Close { reason, allow_reconnect: true }))
        }
        _ => None,
    }
}
