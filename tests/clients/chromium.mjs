// Debian's Chromium, headless, for the tests that need a browser.

import { chromium } from "playwright-core";

// Certificates are not checked: nobody has told this browser of the sandbox's authority.
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--ignore-certificate-errors"],
});

export const close = () => browser.close();

// A page with nothing in it but what the test puts there; whatever goes wrong in it is kept in `errors`.
export async function open(options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(15000);
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => { if (message.type() === "error") errors.push(message.text()); });
  return { page, errors, context };
}
