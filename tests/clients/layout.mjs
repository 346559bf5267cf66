// The layout of the status page, for its tests and for the drills.

// The height of a screen, in pixels.
export const FIRST_SCREEN = 900;

// Returns what is wrong with the layout: text that is wider than its place, and on a wide screen a banner that does not fit the first
// screen.
export async function layoutFaults(page) {
  const { width } = page.viewportSize();
  const cut = await page.evaluate(() => {
    const isCut = (element) => {
      const { left, right, width } = element.getBoundingClientRect();
      return width > 1 && (left < 0 || right > innerWidth + 1 || (element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1));
    };
    return [...document.querySelectorAll("body *:not(.sr, .skip, svg *, option)")].filter(isCut).map((element) => element.outerHTML.slice(0, 200));
  });
  const faults = cut.map((html) => `at ${width} px cut off: ${html}`);
  if (await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)) faults.push(`the page overflows at ${width} px`);
  const bottom = await page.locator("#verdict").evaluate((banner) => banner.getBoundingClientRect().bottom + scrollY);
  if (width >= 1280 && bottom > FIRST_SCREEN) faults.push(`the banner ends at ${Math.round(bottom)} px`);
  return faults;
}
