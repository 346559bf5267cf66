// The web page of the sandbox: a SignalR client on each endpoint (JSON hub protocol over WebSocket), and a form that sends
// through the gateway by way of the sandbox's relay, because the gateway rejects browsers.
// Source of the protocol: TransportProtocols.md and HubProtocol.md of ASP.NET Core.

const SEPARATOR = "\u001e";
const VERSION = "api-version=2024-12-01";
const PING_MS = 10_000;
const SILENCE_MS = 30_000;
const RECONNECT_MS = 1_000;
const REFRESH_MS = 2_000;
const SHOWN = 200;

const find = (selector, within = document) => within.querySelector(selector);
const element = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

const clockTime = new Intl.DateTimeFormat([], {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});

function timeOf(date) {
  const time = element("time", "", clockTime.format(date));
  time.dateTime = date.toISOString();
  return time;
}

// Preserves numbers as written where the browser supports it: JavaScript numbers do not hold 64 bits.
const parse = (text) => JSON.parse(text, (_key, value, context) =>
  typeof value === "number" && context?.source && JSON.rawJSON && String(value) !== context.source
    ? JSON.rawJSON(context.source) : value);

// Runs the client of one endpoint: connects, reconnects and shows records in its lane until `signal` is aborted.
async function listen(endpoint, hub, user, lane, signal) {
  const query = new URLSearchParams({ hub, ...(user && { user }) });
  while (!signal.aborted) {
    lane.state("connecting");
    try {
      const reason = await connect(await negotiate(`/endpoints/${endpoint}/negotiate?${query}`, signal), lane, signal);
      if (reason) lane.note(`closed by the service: ${reason}`);
    } catch (error) {
      lane.problem = error.message;
    }
    if (signal.aborted) return;
    lane.id = undefined;
    lane.state("reconnecting", "", lane.problem);
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
function connect({ id, url }, lane, signal) {
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
          else lane.connected(id);
        } else if (record.type === 1) {
          lane.arrived(record);
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
class Lane {
  constructor({ name, url, tenant }) {
    this.name = name;
    const made = find("#lane").content.cloneNode(true);
    this.section = find("section", made);
    const title = find("h2", made);
    title.id = `endpoint-${name}`;
    title.textContent = name;
    this.section.setAttribute("aria-labelledby", title.id);
    find(".where", made).textContent = tenant ? `${tenant} · ${url}` : url;
    [this.arrivals, this.people] = made.querySelectorAll(".count");
    this.log = find(".log", made);
    this.log.setAttribute("aria-label", `Arrived on ${name}`);
    this.list = find(".people", made);
    this.list.setAttribute("aria-label", `Connected to ${name}`);
    this.pill = find(".state", made);
    find(".clear", made).onclick = () => this.clear();
    find("#lanes").append(made);
  }

  state(text, kind = "", title = "") {
    this.pill.textContent = text;
    this.pill.className = `state ${kind}`;
    this.pill.title = title;
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
    this.arrivals.textContent = Number(this.arrivals.textContent) + 1;
    answer.seen(this.name, target);
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
    while (this.log.children.length > SHOWN) this.log.firstChild.remove();
    if (scrollHeight - scrollTop - clientHeight < 40) this.log.scrollTop = this.log.scrollHeight;
  }

  clear() {
    this.log.replaceChildren();
    this.arrivals.textContent = 0;
  }

  show({ count, connections }) {
    this.people.textContent = count;
    const lines = connections.map(({ id, user, groups }) => {
      const line = element("li");
      line.append(element("span", "user", user ?? "no user"), element("code", "", id));
      if (id === this.id) line.append(element("span", "quiet", "this page"));
      if (groups.length) line.append(element("span", "quiet", `in ${groups.join(", ")}`));
      return line;
    });
    if (count > connections.length) lines.push(element("li", "quiet", `and ${count - connections.length} more`));
    // An unchanged list is not replaced, which preserves a selection.
    const changed = JSON.stringify([count, connections, this.id]);
    if (changed !== this.shown) this.list.replaceChildren(...lines);
    this.shown = changed;
  }
}

// The view of the last call.
const answer = {
  sent: undefined,

  begin(target) {
    this.sent = { target, at: performance.now(), chips: element("div", "badges") };
    return this.sent;
  },

  show({ sent, status, text, millis, request_id, error_kind, body, error }) {
    const badges = element("div", "badges");
    const good = status >= 200 && status < 300;
    badges.append(element("span", `badge ${good ? "good" : "bad"}`, error ? "no answer" : `${status} ${text}`));
    if (millis !== undefined) badges.append(element("span", "quiet", `after ${millis} ms`));
    const lines = [badges];
    if (error_kind) lines.push(element("p", "mono", `signalr-gateway-error: ${error_kind}`));
    if (request_id) lines.push(element("p", "mono quiet", `x-request-id: ${request_id}`));
    const explanation = error ?? detail(body);
    if (explanation) lines.push(element("p", "", explanation));
    if (good && sent) {
      if (!sent.chips.children.length) sent.chips.append(element("span", "quiet", "not seen on this page yet"));
      lines.push(sent.chips);
    }
    find("#result").replaceChildren(...lines);
  },

  seen(endpoint, target) {
    const { sent } = this;
    if (!sent || sent.target !== target || performance.now() - sent.at > 10_000) return;
    find(".quiet", sent.chips)?.remove();
    const millis = Math.round(performance.now() - sent.at);
    sent.chips.append(element("span", "badge good", `arrived on ${endpoint}, ${millis} ms after sending`));
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
    const relayed = await fetch("/sandbox/relay", { method: "POST", headers, body: JSON.stringify({ method, path, body }) });
    const response = await relayed.json();
    answer.show({ sent, millis: Math.round(performance.now() - started), ...response });
  } catch (error) {
    answer.show({ error: `The sandbox cannot be reached: ${error.message}` });
  }
  refresh();
}

const listening = find("#listen").elements;
const sending = find("#send").elements;
const relayed = find("#relayed");
const segment = encodeURIComponent;

// Returns the call that the form describes. Throws if its arguments are invalid.
function callOfForm() {
  const to = sending.to.value;
  const audience = to === "all" ? "" : `${to}/${segment(sending.name.value)}/`;
  const path = `/api/hubs/${segment(listening.hub.value)}/${audience}:send?${VERSION}`;
  if (!Array.isArray(JSON.parse(sending.args.value))) throw new Error("not an array");
  // Sends the arguments as written, so that long numbers are preserved.
  return { path, body: `{"target":${JSON.stringify(sending.target.value)},"arguments":${sending.args.value.trim()}}` };
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function describe() {
  const needsName = sending.to.value !== "all";
  find("#whom").hidden = !needsName;
  sending.name.required = needsName;
  let problem = "";
  try {
    const { path, body } = callOfForm();
    find("#curl").textContent =
      `curl -i -X POST ${quoted(gateway + path)} -H 'content-type: application/json' -d ${quoted(body)}`;
  } catch {
    problem = "Enter a JSON array, such as [\"world\", 42].";
  }
  find("#args-error").textContent = problem;
  sending.args.setAttribute("aria-invalid", String(problem !== ""));
  return problem === "";
}

let gateway = "";
let lanes = [];
let session = new AbortController();

function start() {
  session.abort();
  session = new AbortController();
  const { hub, user } = { hub: listening.hub.value, user: listening.user.value };
  history.replaceState(null, "", `?${new URLSearchParams({ hub, user })}`);
  for (const lane of lanes) {
    lane.clear();
    listen(lane.name, hub, user, lane, session.signal);
  }
  describe();
}

// Shows the connections, unless the page is in the background.
async function refresh() {
  if (document.hidden) return;
  const hub = session.signal.aborted ? "" : listening.hub.value;
  try {
    const connected = await json(await fetch(`/sandbox/connections?${new URLSearchParams({ hub })}`));
    for (const lane of lanes) lane.show(connected[lane.name]);
  } catch {
    // The sandbox has stopped, and with it every connection.
    for (const lane of lanes) lane.show({ count: 0, connections: [] });
  }
}

find("#listen").onsubmit = (event) => {
  event.preventDefault();
  start();
};
find("#send").oninput = describe;
find("#listen").oninput = describe;
find("#send").onsubmit = (event) => {
  event.preventDefault();
  if (relayed.hidden) return;
  if (!describe()) return sending.args.focus();
  const { path, body } = callOfForm();
  call("POST", path, body, answer.begin(sending.target.value));
};
find("#join").onsubmit = (event) => {
  event.preventDefault();
  const { user, group } = event.target.elements;
  call("PUT", `/api/hubs/${segment(listening.hub.value)}/users/${segment(user.value)}/groups/${segment(group.value)}?${VERSION}`);
};
find("#copy").onclick = async ({ target }) => {
  await navigator.clipboard.writeText(find("#curl").textContent);
  target.textContent = "Copied";
  setTimeout(() => { target.textContent = "Copy"; }, 1500);
};

const query = new URLSearchParams(location.search);
const overview = await json(await fetch("/sandbox"));
// Suggests the existing hubs. Other hubs are created when the page listens to them.
const hubs = [...new Set(Object.values(overview.hubs).flatMap(Object.keys))].sort();
find("#hubs").append(...hubs.map((hub) => Object.assign(element("option"), { value: hub })));
listening.hub.value = query.get("hub") ?? (hubs.includes("chat") ? "chat" : hubs[0] ?? "chat");
listening.user.value = query.get("user") ?? "you";
gateway = overview.gateway ?? `${location.protocol}//YOUR-GATEWAY`;
// Without a gateway, the page cannot send.
for (const part of [relayed, find("#result"), find("#join").closest("details")]) part.hidden = !overview.gateway;
find("#unrelayed").hidden = Boolean(overview.gateway);
lanes = overview.endpoints.map((endpoint) => new Lane(endpoint));
if (overview.gateway) find("#places").append(element("span", "", `The gateway is at ${overview.gateway}`));
if (overview.admin) {
  const link = element("a", "", "its status");
  link.href = `${overview.admin}/`;
  find("#places").append(link);
}
start();
setInterval(refresh, REFRESH_MS);
