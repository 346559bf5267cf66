// The table of a walk, and what is missing in it.

export const HEAD = ["| Drill | Log | Verdict | Alerts |", "|---|---|---|---|"];

const cell = (text) => text.replaceAll("|", "\\|").replaceAll("\n", " ");
const after = (ms) => (ms < 90_000 ? `${Math.round(ms / 1000)} s` : `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`);

// Returns the line that names the cause: the first one at WARN or ERROR since the break whose message matches, if the drill names one.
const lineOf = ({ drill, gateway, broken }) => gateway.lines.find(({ at, level, message }) => (
  (drill.early || at >= broken) && ["WARN", "ERROR"].includes(level) && drill.log.test(message)
));

const isComplete = (line) => ["remedy", "runbook"].every((field) => line[field]);

// Returns what is missing.
export function faults(run) {
  const { drill } = run;
  const line = lineOf(run);
  const missing = [];
  if (!line) missing.push(`no log line ${drill.log}`);
  else if (!isComplete(line)) missing.push(`the log line lacks a remedy or a runbook: ${JSON.stringify(line)}`);
  if (!run.last || run.last.state === "healthy") missing.push("the status page is healthy");
  else if (!run.last.lines.some((text) => drill.verdict.test(text))) missing.push(`verdict without ${drill.verdict}: ${run.last.lines.join(" / ")}`);
  if (run.last && !run.last.lines.some((text) => text.startsWith("do this: "))) missing.push("the verdict has no remedy");
  missing.push(...run.layout);
  for (const name of drill.alerts) {
    if (run.alerts.get(name)?.fired === undefined) missing.push(`${name} has not fired`);
  }
  return missing;
}

// Returns the row of the table.
export function row(run) {
  const line = lineOf(run) ?? {};
  const cause = line["error.cause"] ?? line.problem ?? line.error ?? line.keys;
  const log = [
    `${line.level} \`${line.message}\``, cause && `cause: ${cause}`, line.remedy && `remedy: ${line.remedy}`,
    line.runbook && `runbook: ${line.runbook.replace(/^.*guide\//, "")}`, line.at && `after ${after(line.at - run.broken)}`,
  ];
  const verdict = run.last ? [`**${run.last.state}**`, ...run.last.lines, `seen after ${after(run.verdict?.after ?? 0)}`] : [];
  const alerts = [...run.alerts.values()].map(({ name, severity, pending, fired }) => (
    `${name} (${severity}): ${fired === undefined ? `pending after ${after(pending)}` : `fires after ${after(fired)}`}`
  ));
  return `| ${[run.drill.title, log.filter(Boolean).join("; "), verdict.join(" / "), alerts.join("; ")].map(cell).join(" | ")} |`;
}
