// Two repairs for keyboards and screen readers; a page works without them.
// A part that scrolls sideways can be reached with the keyboard, and the theme's
// copy buttons are no longer one nameless landmark for each code block.
"use strict";

(() => {
  const parts = {
    ".math-display": "Formula",
    ".md-typeset__scrollwrap": "Table",
    ".tabbed-labels": "Tabs",
  };

  function update() {
    for (const nav of document.querySelectorAll("nav.md-code__nav")) {
      nav.setAttribute("role", "presentation");
    }
    for (const [selector, name] of Object.entries(parts)) {
      for (const element of document.querySelectorAll(selector)) {
        if (element.scrollWidth > element.clientWidth) {
          element.setAttribute("tabindex", "0");
          element.setAttribute("role", "group");
          element.setAttribute("aria-label", `${name}, scrolls sideways`);
        } else {
          for (const attribute of ["tabindex", "role", "aria-label"]) {
            element.removeAttribute(attribute);
          }
        }
      }
    }
  }

  // The theme wraps tables and adds buttons later than this; fonts change widths.
  new ResizeObserver(update).observe(document.body);
  new MutationObserver(update).observe(document.querySelector("article"), {
    childList: true,
    subtree: true,
  });
  document.fonts.ready.then(update);
  addEventListener("load", update);
  document.addEventListener("toggle", update, true);
})();
