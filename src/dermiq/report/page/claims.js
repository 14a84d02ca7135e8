// Claims in an answer: underlined by verdict, explained in one note that all of them share.
// All that comes from a run becomes text nodes, never markup.

/** A new element with attributes and children (nodes or texts; null is left out). */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** The verdict that weighs most among notes: one contradiction makes a contradicted claim. */
function gravest(notes) {
  const verdicts = notes.map(([verdict]) => verdict);
  return ["contradicted", "supported", "unknown"].find((verdict) => verdicts.includes(verdict));
}

/** The text of a passage, its claims marked. `notes` are all notes of the page. */
function passageNodes(text, marks, notes) {
  const characters = Array.from(text); // marks count as Python does: characters, not UTF-16 units
  const nodes = [];
  let place = 0;
  for (const [start, end, numbers] of marks) {
    const own = numbers.map((number) => notes[number]);
    const claim = make("span", { class: `claim ${gravest(own)}`, tabindex: "0", role: "button" });
    claim.append(characters.slice(start, end).join(""), make("span", { class: "unseen" }, ` (${gravest(own)})`));
    claim.notes = own;
    nodes.push(characters.slice(place, start).join(""), claim);
    place = end;
  }
  return [...nodes, characters.slice(place).join("")];
}

/** What is said of one claim. */
function noteNodes([verdict, claim, evidence, citation]) {
  return make(
    "div",
    { class: "reason" },
    make("p", {}, make("b", { class: `verdict ${verdict}` }, verdict), ` ${claim}`),
    evidence ? make("p", {}, evidence) : make("p", {}, silence(verdict)),
    citation ? make("cite", {}, citation) : null,
  );
}

function silence(verdict) {
  if (verdict === "unknown") return "The knowledge graph neither bears this out nor speaks against it.";
  return "Judged against the true condition.";
}

const noteBox = document.getElementById("note");
let explained = null;

function explain(claim) {
  explained?.removeAttribute("aria-describedby");
  explained = claim;
  noteBox.hidden = !claim;
  if (!claim) return;
  noteBox.replaceChildren(...claim.notes.map(noteNodes));
  claim.setAttribute("aria-describedby", "note");
  const place = claim.getClientRects()[0];
  const left = Math.max(8, Math.min(place.left, document.documentElement.clientWidth - noteBox.offsetWidth - 8));
  const below = place.bottom + 6 + noteBox.offsetHeight <= window.innerHeight;
  noteBox.style.left = `${left + window.scrollX}px`;
  noteBox.style.top = `${(below ? place.bottom + 6 : place.top - noteBox.offsetHeight - 6) + window.scrollY}px`;
}

/** Let the claims inside an element be explained on hover, focus and tap; Escape closes the note. */
function explainClaims(root) {
  const claimAt = (event) => event.target.closest(".claim[tabindex]");
  for (const kind of ["mouseover", "focusin", "click"]) {
    root.addEventListener(kind, (event) => explain(claimAt(event)));
  }
  root.addEventListener("mouseleave", () => explain(null));
  root.addEventListener("focusout", () => explain(null));
  root.addEventListener("keydown", (event) => {
    if (claimAt(event) && ["Enter", " "].includes(event.key)) {
      event.preventDefault();
      explain(claimAt(event));
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") explain(null);
  });
}
