// The web page of the sandbox: a SignalR client of each endpoint (JSON hub protocol over WebSocket), and a form that sends
// calls through the gateway. The sandbox relays the calls, because the gateway rejects browsers.
// Source of the protocol: TransportProtocols.md and HubProtocol.md of ASP.NET Core.

const SEPARATOR = "\u001e";
const VERSION = "api-version=2024-12-01";
const PING_MS = 10_000;
const SILENCE_MS = 30_000;
const RECONNECT_MS = 1_000;
const REFRESH_MS = 2_000;
const MAX_ENTRIES = 200;

const find = (selector, within = document) => within.querySelector(selector);
const element = (name, className, text) => {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

const clockTime = new Intl.DateTimeFormat([], {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});

function timeOf(date) {
  const time = element("time", "", clockTime.format(date));
  time.dateTime = date.toISOString();
  return time;
}

// Parses JSON and preserves numbers as written, where the browser supports it. JavaScript numbers cannot hold 64-bit integers.
const parse = (text) => JSON.parse(text, (_key, value, context) =>
  typeof value === "number" && context?.source && JSON.rawJSON && String(value) !== context.source
    ? JSON.rawJSON(context.source) : value);

// Runs the client of one endpoint until `signal` is aborted: connects, reconnects and shows received records in the view.
async function listen(endpoint, hub, user, view, signal) {
  const query = new URLSearchParams({ hub, ...(user && { user }) });
  while (!signal.aborted) {
    view.state("connecting");
    try {
      const reason = await connect(await negotiate(`/endpoints/${endpoint}/negotiate?${query}`, signal), view, signal);
      if (reason) view.note(`closed by the service: ${reason}`);
    } catch (error) {
      view.problem = error.message;
    }
    if (signal.aborted) return;
    view.id = undefined;
    view.state("reconnecting", "", view.problem);
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
  }
}

// Negotiates with the application, which returns the service's URL and a token, and then with the service, which returns the
// connection ids.
async function negotiate(path, signal) {
  const { url, accessToken, error } = await json(await fetch(path, { method: "POST", signal }));
  if (error) throw new Error(error);
  const service = new URL(url);
  const target = new URL(service);
  target.pathname += "negotiate";
  target.searchParams.set("negotiateVersion", "1");
  const headers = { authorization: `Bearer ${accessToken}` };
  const { connectionId, connectionToken } = await json(await fetch(target, { method: "POST", headers, signal }));
  service.protocol = service.protocol === "https:" ? "wss:" : "ws:";
  service.searchParams.set("id", connectionToken);
  service.searchParams.set("access_token", accessToken);
  return { id: connectionId, url: service };
}

async function json(response) {
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return response.json();
}

// Runs one connection until it closes, and resolves to the service's reason, if any.
function connect({ id, url }, view, signal) {
  const socket = new WebSocket(url);
  const sendRecord = (record) => socket.send(JSON.stringify(record) + SEPARATOR);
  return new Promise((resolve) => {
    let lastReceived = Date.now();
    let handshakeDone = false;
    let reason;
    const clock = setInterval(() => {
      if (Date.now() - lastReceived > SILENCE_MS) socket.close();
      else if (handshakeDone) sendRecord({ type: 6 });
    }, PING_MS);
    const stop = () => socket.close();
    signal.addEventListener("abort", stop);
    socket.onopen = () => sendRecord({ protocol: "json", version: 1 });
    socket.onclose = () => {
      clearInterval(clock);
      signal.removeEventListener("abort", stop);
      resolve(reason);
    };
    socket.onmessage = ({ data }) => {
      lastReceived = Date.now();
      for (const text of data.split(SEPARATOR).slice(0, -1)) {
        const record = parse(text);
        if (!handshakeDone) {
          handshakeDone = true;
          if (record.error) reason = record.error;
          else view.connected(id);
        } else if (record.type === 1) {
          view.arrived(record);
          // An invocation is completed with its own arguments.
          if (record.invocationId) sendRecord({ type: 3, invocationId: record.invocationId, result: record.arguments });
        } else if (record.type === 7) {
          reason = record.error ?? "no reason given";
        }
      }
    };
  });
}

// The view of one endpoint.
class EndpointView {
  constructor({ name, url, tenant }) {
    this.name = name;
    const fragment = find("#endpoint-view").content.cloneNode(true);
    this.section = find("section", fragment);
    const title = find("h2", fragment);
    title.id = `endpoint-${name}`;
    title.textContent = name;
    this.section.setAttribute("aria-labelledby", title.id);
    find(".address", fragment).textContent = tenant ? `${tenant} · ${url}` : url;
    [this.arrivalCount, this.connectionCount] = fragment.querySelectorAll(".count");
    this.log = find(".log", fragment);
    this.log.setAttribute("aria-label", `Arrived on ${name}`);
    this.connectionList = find(".connections", fragment);
    this.connectionList.setAttribute("aria-label", `Connected to ${name}`);
    this.stateLabel = find(".state", fragment);
    find(".clear", fragment).onclick = () => this.clear();
    find("#endpoints").append(fragment);
  }

  state(text, kind = "", title = "") {
    this.connection = { text, kind, title };
    this.showState();
  }

  // Shows the state of this page's connection, and the endpoint's fault instead of or beside it.
  showState() {
    const { text, kind, title } = this.connection;
    const fault = faultOf(this.name);
    this.stateLabel.textContent = fault === "down" ? "down" : [text, fault].filter(Boolean).join(" · ");
    this.stateLabel.className = `state ${fault === "down" ? "bad" : fault ? "" : kind}`;
    this.stateLabel.title = fault === "down" ? "refuses connections, by a fault" : title;
  }

  connected(id) {
    this.id = id;
    this.state("connected", "good");
    refresh();
  }

  arrived({ target, arguments: args, invocationId }) {
    const line = element("div", "arrival new");
    line.append(element("span", "target mono", target), timeOf(new Date()));
    line.append(element("code", "", args.map((value) => JSON.stringify(value)).join(", ")));
    if (invocationId) line.append(element("span", "note", "an invocation: completed with its arguments"));
    this.append(line);
    this.arrivalCount.textContent = Number(this.arrivalCount.textContent) + 1;
    lastCall.seen(this.name, target);
  }

  note(text) {
    const line = element("div", "arrival");
    line.append(element("span", "note", text), timeOf(new Date()));
    this.append(line);
  }

  append(line) {
    // Keeps the newest entry in view unless the reader has scrolled up.
    const { scrollTop, scrollHeight, clientHeight } = this.log;
    this.log.append(line);
    while (this.log.children.length > MAX_ENTRIES) this.log.firstChild.remove();
    if (scrollHeight - scrollTop - clientHeight < 40) this.log.scrollTop = this.log.scrollHeight;
  }

  clear() {
    this.log.replaceChildren();
    this.arrivalCount.textContent = 0;
  }

  show({ count, connections }) {
    this.connectionCount.textContent = count;
    const lines = connections.map(({ id, user, groups }) => {
      const line = element("li");
      line.append(user ? recipient("users", user, "user") : element("span", "muted", "no user"), recipient("connections", id, "mono"));
      if (id === this.id) line.append(element("span", "muted", "this page"));
      if (groups.length) line.append(element("span", "muted", "in"), ...groups.map((group) => recipient("groups", group)));
      return line;
    });
    if (count > connections.length) lines.push(element("li", "muted", `and ${count - connections.length} more`));
    // An unchanged list is not replaced, which preserves a selection.
    const changed = JSON.stringify([count, connections, this.id]);
    if (changed === this.shown) return;
    this.shown = changed;
    const focused = this.connectionList.contains(document.activeElement) ? document.activeElement.title : undefined;
    this.connectionList.replaceChildren(...lines);
    // The focus stays on the same recipient, or at least in the list.
    if (focused !== undefined) {
      const buttons = [...this.connectionList.querySelectorAll("button")];
      (buttons.find(({ title }) => title === focused) ?? this.connectionList).focus();
    }
  }
}

// Returns a button that fills the form with a user, a connection or a group.
function recipient(to, name, className) {
  const button = element("button", className, name);
  button.type = "button";
  button.title = `Send to ${{ users: "user", connections: "connection", groups: "group" }[to]} ${name}`;
  button.onclick = () => {
    sendFields.to.value = to;
    sendFields.name.value = name;
    updateCommand();
    sendFields.target.focus();
  };
  return button;
}

const DOWN = "refuse";
const answer = (status, more) => ({ answer: { status, content_type: "application/json", ...more } });

// The faults of the panel, by the kind of server. The API of an endpoint is below /api/, so its clients are not affected.
const FAULTS = {
  endpoint: {
    down: { fault: DOWN },
    slow: { fault: { delay: { delay_ms: 3000 } }, path_prefix: "/api/" },
    "answers 429": { fault: answer(429, { retry_after_secs: 2 }), path_prefix: "/api/" },
    "token refused": { fault: answer(401, { headers: [["www-authenticate", "Bearer"]] }), path_prefix: "/api/" },
  },
  entra: {
    down: { fault: DOWN },
    slow: { fault: { delay: { delay_ms: 3000 } } },
    "answers 429": { fault: answer(429, { retry_after_secs: 2, body: '{"error":"temporarily_unavailable","error_description":"AADSTS90055: There are too many requests for this tenant."}' }) },
    "secret refused": { fault: answer(401, { body: '{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}' }) },
  },
};
// What the buttons say.
const FAULT_LABELS = { down: "Down", slow: "Slow (3 s)", "answers 429": "429", "token refused": "Token refused", "secret refused": "Secret refused" };

let faults = {};

// Returns JSON with sorted keys.
const canonical = (value) => JSON.stringify(value, (_key, inner) =>
  inner && typeof inner === "object" && !Array.isArray(inner) ? Object.fromEntries(Object.entries(inner).sort()) : inner);

// Returns the name of a server's fault, if it has one.
function faultOf(server) {
  const current = faults[server];
  if (!current) return undefined;
  if (current.refusing) return "down";
  const same = (fault) => current.pending.length === 1 && canonical(fault) === canonical(current.pending[0]);
  const presets = server === "entra" ? FAULTS.entra : FAULTS.endpoint;
  return Object.keys(presets).find((name) => same(presets[name])) ?? "other faults";
}

// A server's row in the panel.
class FaultRow {
  constructor(server) {
    this.server = server;
    const row = element("div", "fault-row");
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", `Faults of ${server === "entra" ? "Entra" : server}`);
    const buttons = element("div", "fault-buttons");
    this.buttons = Object.entries(server === "entra" ? FAULTS.entra : FAULTS.endpoint).map(([name, fault]) => {
      const button = element("button", "", FAULT_LABELS[name]);
      button.type = "button";
      button.onclick = () => this.toggle(name, fault);
      return [name, button];
    });
    this.others = element("span", "muted");
    buttons.append(...this.buttons.map(([, button]) => button), this.others);
    row.append(element("b", "", server === "entra" ? "Entra" : server), buttons);
    find("#fault-rows").append(row);
    this.show();
  }

  async toggle(name, fault) {
    const url = `/sandbox/faults?${new URLSearchParams({ server: this.server })}`;
    const headers = { "content-type": "application/json" };
    const request = faultOf(this.server) === name ? { method: "DELETE" } : { method: "PUT", headers, body: JSON.stringify(fault) };
    await changeFaults(url, request);
  }

  show() {
    const current = faultOf(this.server);
    for (const [name, button] of this.buttons) button.setAttribute("aria-pressed", String(name === current));
    this.others.textContent = current === "other faults" ? "other faults, set by the API or the description file" : "";
  }
}

async function changeFaults(url, request) {
  try {
    const response = await fetch(url, request);
    if (!response.ok) throw new Error(await response.text());
  } catch (error) {
    lastCall.show({ error: `the fault was not changed: ${error.message}` });
  }
  await refreshFaults();
}

async function refreshFaults() {
  faults = await json(await fetch("/sandbox/faults"));
  for (const row of faultRows) row.show();
  for (const view of views) view.showState();
  find("#clear-faults").hidden = Object.keys(faults).length === 0;
}

// The response to the last call, and the endpoints where its message arrived.
const lastCall = {
  sent: undefined,

  begin(target) {
    this.sent = { target, at: performance.now(), arrivals: element("div", "badges") };
    return this.sent;
  },

  show({ sent, status, text, millis, request_id, error_kind, body, error }) {
    const badges = element("div", "badges");
    const good = status >= 200 && status < 300;
    badges.append(element("span", `badge ${good ? "good" : "bad"}`, error ? "no response" : `${status} ${text}`));
    if (millis !== undefined) badges.append(element("span", "muted", `after ${millis} ms`));
    const lines = [badges];
    if (error_kind) lines.push(element("p", "mono", `signalr-gateway-error: ${error_kind}`));
    if (request_id) lines.push(element("p", "mono muted", `x-request-id: ${request_id}`));
    const { text: explanation, outcomes } = error ? { text: error, outcomes: [] } : detail(body);
    if (explanation) lines.push(element("p", "", explanation));
    if (outcomes.length) {
      const list = element("ul", "badges");
      list.setAttribute("aria-label", "Outcome at each endpoint");
      list.append(...outcomes.map(({ endpoint, outcome, status: answered }) =>
        element("li", `badge ${outcome === "accepted" ? "good" : "bad"}`, `${endpoint}: ${outcome}${answered ? ` (${answered})` : ""}`)));
      lines.push(list);
    }
    if (good && sent) {
      if (!sent.arrivals.children.length) sent.arrivals.append(element("span", "muted", "not seen on this page yet"));
      lines.push(sent.arrivals);
    }
    find("#result").replaceChildren(...lines);
  },

  seen(endpoint, target) {
    const { sent } = this;
    if (!sent || sent.target !== target || performance.now() - sent.at > 10_000) return;
    find(".muted", sent.arrivals)?.remove();
    const millis = Math.round(performance.now() - sent.at);
    sent.arrivals.append(element("span", "badge good", `arrived on ${endpoint}, ${millis} ms after sending`));
  },
};

// Returns the detail of an error body of the gateway or of the service, if any, and the outcome at each endpoint.
function detail(body) {
  if (!body) return { text: "", outcomes: [] };
  try {
    const problem = JSON.parse(body);
    if (Object.keys(problem).length === 0) return { text: "", outcomes: [] };
    const outcomes = Array.isArray(problem.endpoints) ? problem.endpoints : [];
    return { text: problem.detail ?? problem.error ?? body, outcomes };
  } catch {
    return { text: body, outcomes: [] };
  }
}

// Calls the gateway through the relay.
async function call(method, path, body, sent) {
  const started = performance.now();
  try {
    const headers = { "content-type": "application/json" };
    const relayResponse = await fetch("/sandbox/relay", { method: "POST", headers, body: JSON.stringify({ method, path, body }) });
    const response = await relayResponse.json();
    lastCall.show({ sent, millis: Math.round(performance.now() - started), ...response });
  } catch (error) {
    lastCall.show({ error: `cannot reach the sandbox: ${error.message}` });
  }
  refresh();
}

const listenFields = find("#listen").elements;
const sendFields = find("#send").elements;
const sendButton = find("#send-button");
const segment = encodeURIComponent;

// Returns the path and the body of the call in the form. Throws if the arguments are invalid.
function formToCall() {
  const to = sendFields.to.value;
  const audience = to === "all" ? "" : `${to}/${segment(sendFields.name.value)}/`;
  const path = `/api/hubs/${segment(listening.hub)}/${audience}:send?${VERSION}`;
  if (!Array.isArray(JSON.parse(sendFields.args.value))) throw new Error("not an array");
  // The arguments are sent as written, which preserves long numbers.
  return { path, body: `{"target":${JSON.stringify(sendFields.target.value)},"arguments":${sendFields.args.value.trim()}}` };
}

const shellQuote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function updateCommand() {
  find("#hub").textContent = listening.hub;
  const needsName = sendFields.to.value !== "all";
  find("#recipient").hidden = !needsName;
  sendFields.name.required = needsName;
  let problem = "";
  try {
    const { path, body } = formToCall();
    find("#curl").textContent =
      `curl -i -X POST ${shellQuote(gateway + path)} -H 'content-type: application/json' -d ${shellQuote(body)}`;
  } catch {
    problem = "Enter a JSON array, such as [\"world\", 42].";
  }
  find("#args-error").textContent = problem;
  sendFields.args.setAttribute("aria-invalid", String(problem !== ""));
  return problem === "";
}

let gateway = "";
let views = [];
let faultRows = [];
let session = new AbortController();
// The hub and the user of the running listener. The fields may have been edited since.
let listening = { hub: "", user: "" };

// Says that edited fields have no effect yet.
function updateListening() {
  const edited = listenFields.hub.value !== listening.hub || listenFields.user.value !== listening.user;
  find("#not-listening").textContent = edited
    ? `Still listening to ${listening.hub} as ${listening.user || "no user"}. Press Listen to change that.` : "";
}

function start() {
  session.abort();
  session = new AbortController();
  listening = { hub: listenFields.hub.value, user: listenFields.user.value };
  const { hub, user } = listening;
  updateListening();
  history.replaceState(null, "", `?${new URLSearchParams({ hub, user })}`);
  for (const view of views) {
    view.clear();
    listen(view.name, hub, user, view, session.signal);
  }
  updateCommand();
}

// Updates the lists of connections, unless the page is in the background.
async function refresh() {
  if (document.hidden) return;
  const { hub } = listening;
  try {
    await refreshFaults();
    const connected = await json(await fetch(`/sandbox/connections?${new URLSearchParams({ hub })}`));
    for (const view of views) view.show(connected[view.name]);
  } catch {
    // The sandbox has stopped, so no connection is open.
    for (const view of views) view.show({ count: 0, connections: [] });
  }
}

find("#listen").onsubmit = (event) => {
  event.preventDefault();
  start();
};
find("#send").oninput = updateCommand;
find("#listen").oninput = updateListening;
find("#clear-faults").onclick = async () => {
  await changeFaults("/sandbox/faults", { method: "DELETE" });
  find("#fault-rows button").focus();
};
find("#send").onsubmit = (event) => {
  event.preventDefault();
  if (sendButton.hidden) return;
  if (!updateCommand()) return sendFields.args.focus();
  const { path, body } = formToCall();
  call("POST", path, body, lastCall.begin(sendFields.target.value));
};
find("#join").onsubmit = (event) => {
  event.preventDefault();
  const { user, group } = event.target.elements;
  call("PUT", `/api/hubs/${segment(listening.hub)}/users/${segment(user.value)}/groups/${segment(group.value)}?${VERSION}`);
};
find("#copy").onclick = async ({ target }) => {
  await navigator.clipboard.writeText(find("#curl").textContent);
  target.textContent = "Copied";
  setTimeout(() => { target.textContent = "Copy"; }, 1500);
};

const query = new URLSearchParams(location.search);
const overview = await json(await fetch("/sandbox"));
// Suggests the existing hubs. The sandbox creates any other hub when the page connects to it.
const hubs = [...new Set(Object.values(overview.hubs).flatMap(Object.keys))].sort();
find("#hubs").append(...hubs.map((hub) => Object.assign(element("option"), { value: hub })));
listenFields.hub.value = query.get("hub") ?? (hubs.includes("chat") ? "chat" : hubs[0] ?? "chat");
listenFields.user.value = query.get("user") ?? "you";
gateway = overview.gateway ?? `${location.protocol}//YOUR-GATEWAY`;
// Without a gateway, the page cannot send.
for (const part of [sendButton, find("#result"), find("#join").closest("details")]) part.hidden = !overview.gateway;
find("#no-gateway").hidden = Boolean(overview.gateway);
views = overview.endpoints.map((endpoint) => new EndpointView(endpoint));
faultRows = [...overview.endpoints.map(({ name }) => name), "entra"].map((server) => new FaultRow(server));
if (overview.gateway) find("#links").append(element("span", "", `The gateway is at ${overview.gateway}`));
if (overview.more_endpoints) {
  find("#links").append(element("span", "", `${overview.more_endpoints} more endpoints are not shown`));
}
if (overview.admin) {
  const link = element("a", "", "its status");
  link.href = `${overview.admin}/`;
  find("#links").append(link);
}
start();
setInterval(refresh, REFRESH_MS);
