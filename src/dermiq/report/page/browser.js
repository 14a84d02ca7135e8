// The case browser: filters, a list that draws only what is seen of it, the chosen case, and all of it in the address.

{
  const data = JSON.parse(document.getElementById("data").textContent);
  const pictures = document.getElementById("pictures").textContent.split("\n");
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const rows = document.getElementById("rows");
  const article = document.getElementById("case");
  const ROW = 64; // pixels, as in style.css
  let shown = data.cases;
  let chosen = 0; // its place in `shown`

  // ---- filters

  const nameOf = (one) => `${one.dataset ?? ""}:${one.id}`;
  const passagesOf = (answer) => answer.passages.map((number) => data.passages[number]);
  const notesOf = (answer) => passagesOf(answer).flatMap(([, , marks]) => marks.flatMap(([, , notes]) => notes));
  const contradicts = (answer) => notesOf(answer).some((number) => data.notes[number][0] === "contradicted");
  const textOf = (one) =>
    [one.id, one.question, one.target, ...one.answers.flatMap((a) => (a ? passagesOf(a).map(([, text]) => text) : []))]
      .join("\n").toLowerCase();

  function fillChoices(name, values) {
    for (const value of [...new Set(values.filter(Boolean))].sort()) form.elements[name].append(make("option", {}, value));
    form.elements[name].closest("label").hidden = form.elements[name].options.length < 3; // nothing to choose
  }

  const OUTCOMES = {
    "": () => true,
    right: (one, stage) => one.answers[stage]?.right === true,
    wrong: (one, stage) => one.answers[stage]?.right === false,
    mended: (one, stage) => OUTCOMES.right(one, stage) && before(one, stage)?.right === false,
    broken: (one, stage) => OUTCOMES.wrong(one, stage) && before(one, stage)?.right === true,
  };
  const before = (one, stage) => one.answers.slice(0, stage).findLast(Boolean);

  function filter() {
    const wanted = Object.fromEntries(new FormData(form));
    const stage = Number(wanted.stage) - 1;
    const words = wanted.q.toLowerCase().trim();
    const current = shown[chosen];
    shown = data.cases.filter(
      (one) =>
        (!wanted.condition || one.target === wanted.condition) &&
        (!wanted.skin || one.skin === wanted.skin) &&
        (!wanted.kind || one.kind === wanted.kind) &&
        OUTCOMES[wanted.outcome](one, stage) &&
        (!wanted.contradicted || (one.answers[stage] && contradicts(one.answers[stage]))) &&
        (!words || textOf(one).includes(words)),
    );
    document.getElementById("count").value = `${shown.length} of ${data.cases.length} cases`;
    rows.style.height = `${shown.length * ROW}px`;
    choose(Math.max(0, shown.indexOf(current)));
  }

  // ---- the address: what is chosen, to be shared

  function writeAddress() {
    const wanted = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    if (shown[chosen]) wanted.set("case", nameOf(shown[chosen]));
    history.replaceState(null, "", `#${wanted}`);
  }

  /** Take up what the address says; false if it names a part of the page. */
  function readAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (!wanted.has("case")) return false;
    form.reset();
    for (const [name, value] of wanted) {
      const field = form.elements[name];
      if (field?.type === "checkbox") field.checked = true;
      else if (field) field.value = value;
    }
    filter();
    choose(Math.max(0, shown.findIndex((one) => nameOf(one) === wanted.get("case"))));
    return true;
  }

  // ---- the list

  function drawRows() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
    rows.replaceChildren(...shown.slice(first, last).map((one, index) => row(one, first + index)));
    if (chosen >= first && chosen < last) list.setAttribute("aria-activedescendant", `row-${chosen}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function row(one, place) {
    const element = make(
      "div",
      {
        role: "option", id: `row-${place}`, class: "row", "aria-selected": String(place === chosen),
        "aria-posinset": String(place + 1), "aria-setsize": String(shown.length),
      },
      one.pictures ? picture(one.pictures[0], "") : make("span", { class: "blank" }),
      make("span", { class: "words" }, make("b", {}, one.target), make("span", {}, one.question)),
      make("span", { class: "ticks" }, ...one.answers.map((answer, stage) => tick(answer, stage))),
    );
    element.style.top = `${place * ROW}px`;
    return element;
  }

  /** A click on a row, also on one that scrolling has drawn anew since the button went down. */
  function clicked(event) {
    const element = event.target.closest(".row");
    choose(element ? Number(element.id.slice("row-".length)) : Math.floor((event.clientY - rows.getBoundingClientRect().top) / ROW));
  }

  function tick(answer, stage) {
    const [sign, word] = judged(answer);
    const attributes = { class: { "✓": "right", "·": "" }[sign] ?? "wrong", title: `${data.stages[stage]}: ${word}` };
    return make("span", attributes, make("span", { "aria-hidden": "true" }, sign), make("span", { class: "unseen" }, ` ${word}`));
  }

  function judged(answer) {
    if (!answer) return ["·", "not tested"];
    if (answer.right !== undefined) return answer.right ? ["✓", "right"] : ["✗", "wrong"];
    return contradicts(answer) ? ["!", "has a contradicted claim"] : ["·", "no contradicted claim"];
  }

  function picture(number, words) {
    return make("img", { src: `data:image/webp;base64,${pictures[number]}`, alt: words, loading: "lazy", decoding: "async" });
  }

  // ---- the chosen case

  function choose(place) {
    chosen = Math.max(0, Math.min(place, shown.length - 1));
    const top = chosen * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    drawRows();
    explain(null);
    article.replaceChildren(...(shown.length ? caseNodes(shown[chosen]) : [make("p", { class: "missing" }, "No case fits these filters.")]));
    writeAddress();
  }

  function caseNodes(one) {
    const known = [["kind", one.kind], ["true", one.target], ["skin type", one.skin], ["site", one.site], ["id", one.id]];
    const step = (by, label, word) => {
      const button = make("button", { type: "button", "aria-label": word }, label);
      button.disabled = !shown[chosen + by];
      button.addEventListener("click", () => choose(chosen + by));
      return button;
    };
    return [
      make(
        "div",
        { class: "asked" },
        one.pictures ? make("div", { class: "pictures" }, ...one.pictures.map((n, i) => picture(n, `Image ${i + 1} of the question`))) : null,
        make(
          "div",
          {},
          make("p", { class: "steps" }, step(-1, "← Previous", "Previous case"), step(1, "Next →", "Next case"), ` ${chosen + 1} of ${shown.length}`),
          make("h3", {}, one.question),
          one.options ? make("ol", { class: "options" }, ...one.options.map((option) => make("li", {}, option))) : null,
          make("dl", {}, ...known.filter(([, v]) => v).map(([name, v]) => make("div", {}, make("dt", {}, name), make("dd", {}, v)))),
        ),
      ),
      make("div", { class: "answers" }, ...one.answers.map((answer, stage) => answerNode(answer, stage))),
    ];
  }

  function answerNode(answer, stage) {
    const colour = `s${(stage % 6) + 1}`;
    const head = make("h4", {}, make("span", { class: `badge ${colour}` }, String(stage + 1)), ` ${data.stages[stage]}`);
    if (!answer) return make("section", { class: "answer absent" }, head, make("p", { class: "missing" }, "Not tested on this case."));
    return make(
      "section",
      { class: `answer ${colour}` },
      head,
      answer.right === undefined ? null : outcome(answer),
      ...passagesOf(answer).filter(([, text]) => text).flatMap(([heading, text, marks]) => [
        make("h5", {}, heading), make("p", { class: "said" }, ...passageNodes(text, marks, data.notes)),
      ]),
      answer.findings ? make("p", { class: "aside" }, `${answer.findings[0]} of ${answer.findings[1]} stated findings are true of this image.`) : null,
      answer.votes ? make("p", { class: "aside" }, `Votes: ${answer.votes.map(([name, n]) => `${name} ${n}`).join(", ")}`) : null,
      claimList(answer),
      answer.facts ? make("details", {}, make("summary", {}, `${answer.facts.length} facts in the prompt`), make("ul", {}, ...answer.facts.map((number) => make("li", {}, data.facts[number])))) : null,
    );
  }

  function outcome(answer) {
    const name = answer.right ? "right" : `wrong: ${answer.named || "no answer"}`;
    return make("p", { class: `outcome ${answer.right ? "right" : "wrong"}` }, `${answer.right ? "✓" : "✗"} ${name}`);
  }

  function claimList(answer) {
    const numbers = notesOf(answer);
    if (!numbers.length) return make("p", { class: "aside" }, "No claims that the knowledge graph could read.");
    const own = numbers.map((number) => data.notes[number]);
    const counts = ["supported", "contradicted", "unknown"].map((v) => [own.filter(([verdict]) => verdict === v).length, v]);
    const summary = counts.filter(([n]) => n).map(([n, v]) => `${n} ${v}`).join(", ");
    return make("details", { class: "claims" }, make("summary", {}, summary), ...own.map(noteNodes));
  }

  // ---- keys

  const KEYS = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1 };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      form.elements.q.focus();
    } else if (event.key in KEYS && !event.target.closest(".scroll")) {
      event.preventDefault();
      choose(chosen + KEYS[event.key]);
    }
  });
  const LIST_KEYS = { ArrowDown: (n) => n + 1, ArrowUp: (n) => n - 1, PageDown: (n) => n + 8, PageUp: (n) => n - 8, Home: () => 0, End: () => Infinity };
  list.addEventListener("keydown", (event) => {
    if (!(event.key in LIST_KEYS)) return;
    event.preventDefault();
    choose(LIST_KEYS[event.key](chosen));
  });

  fillChoices("condition", data.cases.map((one) => one.target));
  fillChoices("skin", data.cases.map((one) => one.skin));
  fillChoices("kind", data.cases.map((one) => one.kind));
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  list.addEventListener("scroll", drawRows, { passive: true });
  rows.addEventListener("click", clicked);
  window.addEventListener("hashchange", readAddress);
  window.addEventListener("resize", drawRows);
  explainClaims(article);
  const part = location.hash;
  if (readAddress()) document.getElementById("cases").scrollIntoView();
  else {
    filter();
    history.replaceState(null, "", part || "#");
  }
}
