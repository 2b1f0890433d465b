// For each frame: texts that overlap or are cut, narrow or empty figures, and scrolling to the side; details closed and open.
function shown(element) { return element.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true }); }

function texts(root) {
  const walker = root.createTreeWalker(root.body, NodeFilter.SHOW_TEXT), found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const words = node.textContent.trim();
    if (!words || !shown(node.parentElement) || node.parentElement.closest("style, script")) continue;
    const range = root.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width > 1 && box.height > 1) found.push({ node, words, box });
  }
  return found.sort((one, two) => one.box.top - two.box.top);
}

function overlapping(found) {
  const faults = [];
  found.forEach((one, place) => {
    for (let next = place + 1; next < found.length && found[next].box.top < one.box.bottom - 3; next++) {
      const two = found[next];
      const wide = Math.min(one.box.right, two.box.right) - Math.max(one.box.left, two.box.left);
      const high = Math.min(one.box.bottom, two.box.bottom) - two.box.top;
      if (one.node !== two.node && wide > 2 && high > 0.4 * Math.min(one.box.height, two.box.height))
        faults.push(`text over text: "${one.words.slice(0, 40)}" and "${two.words.slice(0, 40)}"`);
    }
  });
  return faults;
}

function cut(found, width) {
  const outside = found.filter(({ node, box }) =>
    (box.left < -1 || box.right > width + 1) && !node.parentElement.closest(".scroll"));
  const clipped = found.filter(({ node, box }) => {
    for (let around = node.parentElement; around; around = around.parentElement) {
      const style = getComputedStyle(around), frame = around.getBoundingClientRect();
      if (/hidden|clip/.test(style.overflowX) && (box.right > frame.right + 1 || box.left < frame.left - 1)) return true;
      if (/hidden|clip/.test(style.overflowY) && (box.bottom > frame.bottom + 1 || box.top < frame.top - 1)) return true;
    }
    return false;
  });
  return [...outside, ...clipped].map(({ words }) => `text is cut: "${words.slice(0, 60)}"`);
}

function figures(root) {
  return [...root.images].flatMap(image => {
    const name = image.alt || "(no alternative text)", faults = [];
    const column = image.closest("section").getBoundingClientRect().width;
    if (!image.alt) faults.push("a figure without alternative text");
    if (!image.naturalWidth) faults.push(`a figure that cannot be shown: ${name}`);
    if (image.getBoundingClientRect().width < column / 2) faults.push(`a figure narrower than half its column: ${name}`);
    return faults;
  });
}

function look(root, width) {
  const found = texts(root), aside = root.documentElement.scrollWidth - width;
  return [...overlapping(found), ...cut(found, width), ...figures(root), ...(aside > 0 ? [`scrolls ${aside} px aside`] : [])];
}

window.addEventListener("load", () => {
  const told = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const root = frame.contentDocument, width = frame.clientWidth, closed = look(root, width);
    const height = root.documentElement.scrollHeight;
    root.querySelectorAll("details").forEach(part => { part.open = true; });
    const faults = [...new Set([...closed, ...look(root, width)])].slice(0, 20);
    told[width] = { faults, height, text: root.body.innerText };
    frame.remove();
  }
  document.querySelector("pre").textContent = JSON.stringify(told);
});
