// The sandbox's page: a SignalR client on each endpoint, speaking the JSON hub protocol over WebSocket, and a form that has
// the sandbox call the gateway. The gateway itself refuses calls of browsers, as it should.
// Source of the protocol: TransportProtocols.md and HubProtocol.md of ASP.NET Core.

const SEPARATOR = "\u001e";
const VERSION = "api-version=2024-12-01";
const PING_MS = 10_000;
const SILENCE_MS = 30_000;
const AGAIN_MS = 1_000;
const LOOK_MS = 2_000;
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

// A number is shown as it was written where the browser can tell: 64 bits do not fit in one of its own.
const parse = (text) => JSON.parse(text, (_key, value, context) =>
  typeof value === "number" && context?.source && JSON.rawJSON && String(value) !== context.source
    ? JSON.rawJSON(context.source) : value);

// One endpoint's client: it connects, reads records and tells its lane. It ends when `signal` is aborted.
async function listen(endpoint, hub, user, lane, signal) {
  const query = new URLSearchParams({ hub, ...(user && { user }) });
  while (!signal.aborted) {
    lane.state("connecting");
    try {
      const reason = await talk(await negotiate(`/endpoints/${endpoint}/negotiate?${query}`, signal), lane, signal);
      if (reason) lane.note(`closed by the service: ${reason}`);
    } catch (error) {
      lane.problem = error.message;
    }
    if (signal.aborted) return;
    lane.id = undefined;
    lane.state("reconnecting", "", lane.problem);
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

// The application's negotiation says where the service is and gives a token; the service's gives the ids.
async function negotiate(path, signal) {
  const { url, accessToken, error } = await asked(await fetch(path, { method: "POST", signal }));
  if (error) throw new Error(error);
  const service = new URL(url);
  const at = new URL(service);
  at.pathname += "negotiate";
  at.searchParams.set("negotiateVersion", "1");
  const headers = { authorization: `Bearer ${accessToken}` };
  const { connectionId, connectionToken } = await asked(await fetch(at, { method: "POST", headers, signal }));
  service.protocol = service.protocol === "https:" ? "wss:" : "ws:";
  service.searchParams.set("id", connectionToken);
  service.searchParams.set("access_token", accessToken);
  return { id: connectionId, url: service };
}

async function asked(answer) {
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  return answer.json();
}

// One connection, from its opening to its end, whose reason is the result if the service gives one.
function talk({ id, url }, lane, signal) {
  const socket = new WebSocket(url);
  const say = (record) => socket.send(JSON.stringify(record) + SEPARATOR);
  return new Promise((resolve) => {
    let heard = Date.now();
    let shaken = false;
    let reason;
    const clock = setInterval(() => {
      if (Date.now() - heard > SILENCE_MS) socket.close();
      else if (shaken) say({ type: 6 });
    }, PING_MS);
    const stop = () => socket.close();
    signal.addEventListener("abort", stop);
    socket.onopen = () => say({ protocol: "json", version: 1 });
    socket.onclose = () => {
      clearInterval(clock);
      signal.removeEventListener("abort", stop);
      resolve(reason);
    };
    socket.onmessage = ({ data }) => {
      heard = Date.now();
      for (const text of data.split(SEPARATOR).slice(0, -1)) {
        const record = parse(text);
        if (!shaken) {
          shaken = true;
          if (record.error) reason = record.error;
          else lane.connected(id);
        } else if (record.type === 1) {
          lane.arrived(record);
          // A call that awaits an answer gets its own arguments back.
          if (record.invocationId) say({ type: 3, invocationId: record.invocationId, result: record.arguments });
        } else if (record.type === 7) {
          reason = record.error ?? "no reason given";
        }
      }
    };
  });
}

// What the page shows of one endpoint.
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
    look();
  }

  arrived({ target, arguments: args, invocationId }) {
    const line = element("div", "arrival new");
    line.append(element("span", "target mono", target), timeOf(new Date()));
    line.append(element("code", "", args.map((value) => JSON.stringify(value)).join(", ")));
    if (invocationId) line.append(element("span", "note", "a call: answered with its arguments"));
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
    // Who reads along stays at the newest, who has scrolled up stays there.
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
    // What has not changed stays, with whatever is selected in it.
    const changed = JSON.stringify([count, connections, this.id]);
    if (changed !== this.shown) this.list.replaceChildren(...lines);
    this.shown = changed;
  }
}

// What became of the call that was sent last.
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
    const told = error ?? detail(body);
    if (told) lines.push(element("p", "", told));
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

// What an answer's body says, if anything: the gateway and the service both answer with problems.
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

// Has the sandbox call the gateway.
async function call(method, path, body, sent) {
  const started = performance.now();
  try {
    const headers = { "content-type": "application/json" };
    const relayed = await fetch("/sandbox/relay", { method: "POST", headers, body: JSON.stringify({ method, path, body }) });
    const said = await relayed.json();
    answer.show({ sent, millis: Math.round(performance.now() - started), ...said });
  } catch (error) {
    answer.show({ error: `The sandbox cannot be reached: ${error.message}` });
  }
  look();
}

const listening = find("#listen").elements;
const sending = find("#send").elements;
const relayed = find("#relayed");
const segment = encodeURIComponent;

// The call that the form describes; throws what is wrong with its arguments.
function described() {
  const to = sending.to.value;
  const audience = to === "all" ? "" : `${to}/${segment(sending.name.value)}/`;
  const path = `/api/hubs/${segment(listening.hub.value)}/${audience}:send?${VERSION}`;
  if (!Array.isArray(JSON.parse(sending.args.value))) throw new Error("not an array");
  // The arguments go out as they were written, so that long numbers stay whole.
  return { path, body: `{"target":${JSON.stringify(sending.target.value)},"arguments":${sending.args.value.trim()}}` };
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function describe() {
  const needsName = sending.to.value !== "all";
  find("#whom").hidden = !needsName;
  sending.name.required = needsName;
  let problem = "";
  try {
    const { path, body } = described();
    find("#curl").textContent =
      `curl -i -X POST ${quoted(gateway + path)} -H 'content-type: application/json' -d ${quoted(body)}`;
  } catch {
    problem = "This is no JSON array, such as [\"world\", 42].";
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

// Who is connected. A page in the background does not ask.
async function look() {
  if (document.hidden) return;
  const hub = session.signal.aborted ? "" : listening.hub.value;
  try {
    const connected = await asked(await fetch(`/sandbox/connections?${new URLSearchParams({ hub })}`));
    for (const lane of lanes) lane.show(connected[lane.name]);
  } catch {
    // The sandbox is gone, and with it everybody who was connected.
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
  const { path, body } = described();
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

const asks = new URLSearchParams(location.search);
const overview = await asked(await fetch("/sandbox"));
// Hubs that are there are offered; every other one comes into being when it is listened to.
const hubs = [...new Set(Object.values(overview.hubs).flatMap(Object.keys))].sort();
find("#hubs").append(...hubs.map((hub) => Object.assign(element("option"), { value: hub })));
listening.hub.value = asks.get("hub") ?? (hubs.includes("chat") ? "chat" : hubs[0] ?? "chat");
listening.user.value = asks.get("user") ?? "you";
gateway = overview.gateway ?? `${location.protocol}//YOUR-GATEWAY`;
// Without a gateway in front, there is nothing that the page could send by.
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
setInterval(look, LOOK_MS);
