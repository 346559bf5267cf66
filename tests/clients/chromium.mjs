// Debian's Chromium, headless, for tests that need a browser.

import { chromium } from "playwright-core";

// Certificates are not checked, because this browser does not trust the sandbox's CA.
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--ignore-certificate-errors", "--host-resolver-rules=MAP gateway.test 127.0.0.1"],
});

export const close = () => browser.close();

// An empty page for a test to fill. Its errors are collected in `errors`.
export async function open(options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(15000);
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => { if (message.type() === "error") errors.push(message.text()); });
  return { page, errors, context };
}
