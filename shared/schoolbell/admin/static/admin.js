// What the page can do better with a script. Without one, everything still works: forms are sent, links are followed.
"use strict";

const REFRESH_EVERY = 10_000; // milliseconds
const TYPING_PAUSE = 250;
const PATIENCE = 10_000; // for the times of a schedule, which take a second, and some where a function starts for them
const ASK_AGAIN = 1; // by itself; the next input asks anyway
const ASK_AGAIN_AFTER = 2_000;

// Times in words stay true while the page is open.

const UNITS = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];

function relative(seconds) {
  const away = Math.abs(seconds);
  const unit = UNITS.find(([, length]) => away >= length);
  if (!unit) return "now";
  const count = Math.floor(away / unit[1]);
  const text = `${count.toLocaleString("en")} ${unit[0]}${count === 1 ? "" : "s"}`;
  return seconds > 0 ? `in ${text}` : `${text} ago`;
}

function tellTimes() {
  for (const time of document.querySelectorAll("time[data-relative]")) {
    const text = relative((Date.parse(time.dateTime) - Date.now()) / 1000);
    if (time.textContent !== text) time.textContent = text;
  }
}

// What is shown is fetched anew every few seconds, unless somebody is at work in it.

const live = [...document.querySelectorAll("[data-live]")].map((region) => region.dataset.live);
let isLive = sessionStorage.getItem("live") !== "off";

function isBusy(region) {
  const focused = document.activeElement;
  const isTyping = region.contains(focused) && focused.matches("input, textarea, select, button");
  return isTyping || region.querySelector(":popover-open") || !getSelection().isCollapsed;
}

async function refresh() {
  if (!live.length || !isLive || document.hidden) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, credentials: "same-origin" }).catch(() => null);
  if (!answer || !answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const name of live) {
    const [old, next] = [document, fresh].map((page) => page.querySelector(`[data-live="${name}"]`));
    if (!old || !next || isBusy(old) || old.innerHTML === next.innerHTML) continue;
    const opened = [...old.querySelectorAll("details")].map((details) => details.open);
    const focused = old.contains(document.activeElement) && document.activeElement.getAttribute("href");
    old.replaceChildren(...next.childNodes);
    old.querySelectorAll("details").forEach((details, index) => { details.open = opened[index] ?? details.open; });
    if (focused) old.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
  search();
  tellTimes();
}

function offerLive() {
  const place = document.getElementById("live");
  if (!place || !live.length) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  const show = () => {
    button.setAttribute("aria-pressed", String(isLive));
    button.textContent = "Live";
    button.title = isLive ? "Stop refreshing" : "Refresh every 10 seconds";
  };
  button.addEventListener("click", () => {
    isLive = !isLive;
    sessionStorage.setItem("live", isLive ? "on" : "off");
    show();
    refresh();
  });
  show();
  place.append(button);
}

// The list is searched as one types.

function search() {
  const field = document.querySelector("form[role=search] input[type=search]");
  if (!field) return;
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of document.querySelectorAll("section.domain")) {
    let shown = 0;
    for (const row of section.querySelectorAll("tr[data-search]")) {
      const isFound = words.every((word) => row.dataset.search.includes(word));
      row.classList.toggle("filtered", !isFound);
      shown += isFound;
    }
    section.classList.toggle("filtered", !shown);
  }
}

// A schedule's next times are shown as one types. Those of what stood there before are not for use, and soon gone.

function previewSchedule() {
  const form = document.getElementById("change");
  const place = document.getElementById("preview");
  if (!form || !place) return;
  const expression = form.querySelector("#expression");
  let waiting;
  let asked;
  const ask = async (signal) => {
    const url = `${form.dataset.preview}?${new URLSearchParams(new FormData(form))}`;
    const answer = await fetch(url, { signal, credentials: "same-origin" });
    return answer.ok ? answer.text() : null;
  };
  const show = async (left) => {
    const mine = asked = new AbortController();
    const times = await ask(AbortSignal.any([mine.signal, AbortSignal.timeout(PATIENCE)])).catch(() => null);
    if (mine.signal.aborted) return;
    place.inert = false;
    if (times === null) {
      place.replaceChildren(unknownTimes(left));
      if (left) waiting = setTimeout(show, ASK_AGAIN_AFTER, left - 1);
    } else place.innerHTML = times; // our own server's, with everything escaped there
    expression.toggleAttribute("aria-invalid", Boolean(place.querySelector(".notice.bad")));
  };
  form.addEventListener("input", () => {
    asked?.abort();
    clearTimeout(waiting);
    place.inert = true;
    waiting = setTimeout(show, TYPING_PAUSE, ASK_AGAIN);
  });
}

function unknownTimes(left) {
  const notice = document.createElement("p");
  notice.className = "notice warning";
  const next = left ? "It is asked again." : "Change something, or press Preview, to ask again.";
  notice.textContent = `The next times are not known: the server did not tell them. ${next}`;
  return notice;
}

// A form is sent once, however often its button is pressed.

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));

document.querySelector("form[role=search]")?.addEventListener("input", search);
offerLive();
previewSchedule();
tellTimes();
setInterval(tellTimes, 1_000);
setInterval(refresh, REFRESH_EVERY);
