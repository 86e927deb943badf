"use strict";
// What is searched, sorted and shown, in the part of the page's address after #: links and reloads keep it.
window.address = (() => {
  function read(table) {
    const said = new URLSearchParams(location.hash.slice(1));
    const number = (name, least, most, otherwise) => {
      const value = Number(said.get(name) ?? NaN);
      return value >= least && value <= most ? value : otherwise;
    };
    const choice = (name, choices, usual) => choices.includes(said.get(name)) ? said.get(name) : usual;
    const hidden = (said.get("hide") || "").split(",").filter(Boolean).map(Number);
    const image = number("image", 0, table.length - 1, null);
    return {
      search: said.get("q") || "",
      step: Math.round(number("score", 0, 1, 0) * table.steps),
      only: choice("only", window.columns.only, "all"),
      sort: choice("sort", window.columns.sorts, "table"),
      page: Math.floor(number("page", 1, Infinity, 1)),
      hidden: new Set(hidden.filter((label) => label in table.categories)),
      masks: said.get("masks") !== "0",
      boxes: said.get("boxes") === "1",
      texts: said.get("texts") !== "0",
      image: image === null ? null : Math.floor(image),
    };
  }

  function write(view, table) {
    const said = new URLSearchParams();
    const say = (name, value, usual) => { if (value !== usual) said.set(name, value); };
    say("q", view.search, "");
    say("score", view.step / table.steps, 0);
    say("only", view.only, "all");
    say("sort", view.sort, "table");
    say("page", view.page, 1);
    say("hide", [...view.hidden].sort((one, other) => one - other).join(","), "");
    say("masks", view.masks ? 1 : 0, 1);
    say("boxes", view.boxes ? 1 : 0, 0);
    say("texts", view.texts ? 1 : 0, 1);
    say("image", view.image, null);
    history.replaceState(null, "", `#${said}`);
  }

  return { read, write };
})();
