// Makes what was observed at two services comparable, and compares it.

// Header fields that depend on the connection, the time or the proxy in front, and say nothing about the API.
const IGNORED = new Set(["date", "content-length", "connection", "keep-alive", "transfer-encoding", "server", "strict-transport-security"]);
const GUID = /\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/gi;
const JWT = /\beyJ[\w-]+\.[\w-]+\.[\w-]+/g;
// The wording of these fields is not part of the contract.
const WORDING = new Set(["message", "error_description"]);

function describeToken(token) {
  const [header, claims] = token.split(".", 2).map((part) => JSON.parse(Buffer.from(part, "base64url")));
  const names = Object.keys(claims).filter((name) => !["iat", "nbf", "exp"].includes(name)).sort();
  const minutes = (claims.exp - (claims.iat ?? claims.nbf)) / 60;
  return `(token: ${header.alg}, ${Math.round(minutes)} min, ${names.map((name) => `${name}=${claims[name]}`).join(", ")})`;
}

// Returns a text without what differs from run to run. `names` maps such values to names for them.
export function normalizeText(text, names) {
  let result = text.replace(JWT, describeToken);
  for (const [value, name] of names) result = result.replaceAll(value, name);
  return result.replace(/(continuationToken=)[^&"]+/g, "$1(token)").replace(GUID, "(guid)");
}

function normalizeValue(value, names, key) {
  if (typeof value === "string") return WORDING.has(key) ? "(wording)" : normalizeText(value, names);
  if (Array.isArray(value)) return value.map((inner) => normalizeValue(inner, names));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.keys(value).sort().map((inner) => [inner, normalizeValue(value[inner], names, inner)]));
  }
  return value;
}

function normalizeBody(body, type, names) {
  if (body === "") return "(empty)";
  if (type?.includes("json")) {
    try {
      return normalizeValue(JSON.parse(body), names);
    } catch {
      return "(invalid JSON)";
    }
  }
  return type?.includes("html") ? "(HTML)" : "(text)";
}

export function normalizeResponse({ status, headers, body }, names) {
  const kept = Object.entries(headers).filter(([name]) => !IGNORED.has(name)).sort(([a], [b]) => (a < b ? -1 : 1));
  const header = ([name, value]) => {
    const text = normalizeText(String(value), names);
    return [name, name === "www-authenticate" ? text.replace(/error_description="[^"]*"/, 'error_description="(wording)"') : text];
  };
  return { status, headers: Object.fromEntries(kept.map(header)), body: normalizeBody(body, headers["content-type"], names) };
}

// Returns the differences of two values, as lines with the path to each.
export function differences(left, right, path = "") {
  if (JSON.stringify(left) === JSON.stringify(right)) return [];
  const isObject = (value) => value && typeof value === "object" && !Array.isArray(value);
  if (isObject(left) && isObject(right)) {
    const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])].sort();
    return keys.flatMap((key) => differences(left[key], right[key], path ? `${path}.${key}` : key));
  }
  return [{ path, left, right }];
}
