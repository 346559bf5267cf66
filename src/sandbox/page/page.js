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
    this.stateLabel.textContent = text;
    this.stateLabel.className = `state ${kind}`;
    this.stateLabel.title = title;
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
      line.append(element("span", "user", user ?? "no user"), element("code", "", id));
      if (id === this.id) line.append(element("span", "muted", "this page"));
      if (groups.length) line.append(element("span", "muted", `in ${groups.join(", ")}`));
      return line;
    });
    if (count > connections.length) lines.push(element("li", "muted", `and ${count - connections.length} more`));
    // An unchanged list is not replaced, which preserves a selection.
    const changed = JSON.stringify([count, connections, this.id]);
    if (changed !== this.shown) this.connectionList.replaceChildren(...lines);
    this.shown = changed;
  }
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
    const explanation = error ?? detail(body);
    if (explanation) lines.push(element("p", "", explanation));
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

// Returns the detail of an error body of the gateway or of the service, if any.
function detail(body) {
  if (!body) return "";
  try {
    const problem = JSON.parse(body);
    if (Object.keys(problem).length === 0) return "";
    return problem.detail ?? problem.error ?? body;
  } catch {
    return body;
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
  const path = `/api/hubs/${segment(listenFields.hub.value)}/${audience}:send?${VERSION}`;
  if (!Array.isArray(JSON.parse(sendFields.args.value))) throw new Error("not an array");
  // The arguments are sent as written, which preserves long numbers.
  return { path, body: `{"target":${JSON.stringify(sendFields.target.value)},"arguments":${sendFields.args.value.trim()}}` };
}

const shellQuote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function updateCommand() {
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
let session = new AbortController();

function start() {
  session.abort();
  session = new AbortController();
  const { hub, user } = { hub: listenFields.hub.value, user: listenFields.user.value };
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
  const hub = session.signal.aborted ? "" : listenFields.hub.value;
  try {
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
find("#listen").oninput = updateCommand;
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
  call("PUT", `/api/hubs/${segment(listenFields.hub.value)}/users/${segment(user.value)}/groups/${segment(group.value)}?${VERSION}`);
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
