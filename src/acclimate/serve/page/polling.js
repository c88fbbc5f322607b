// Asks again and again: every two seconds while the server answers, ever more rarely while it does not.
// Where an answer takes long, of a great many streams say, asking takes a tenth of the time and no more.

const [SOON, RARELY] = [2_000, 30_000];
let [pause, timer, running, rerun] = [SOON, 0, false, false];
let lines = [];
let serving = null;
const shown = { list: "", detail: "" };

function chosen() {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return location.hash.slice(1); }
}

// Drawing only what has changed keeps the pointer, the selection and the scroll where they are.
function redraw(part, value, draw) {
  const text = JSON.stringify(value);
  if (shown[part] === text) return;
  shown[part] = text;
  draw();
}

const drawList = () =>
  redraw("list", [lines, chosen(), find("search").value, find("order").value], () => list(lines, chosen()));

async function drawDetail() {
  const name = chosen();
  if (!name) {
    redraw("detail", lines.length, () => placeholder(lines.length ? "Choose a stream." : "A stream appears with its first request."));
    return;
  }
  try {
    const [status, kept] = await Promise.all([ask(at(name)), ask(`${at(name)}/snapshots`)]);
    if (name === chosen()) redraw("detail", [name, status, kept], () => detail(name, status, kept.snapshots));
  } catch (problem) {
    if (problem.status === 0 || problem.status >= 500) throw problem;
    redraw("detail", [name, problem.message], () => placeholder(problem.message));
  }
}

async function look() {
  try {
    await ask("/readyz");
    serving ??= await ask("/v1/info");
  } catch (problem) {
    if (problem.status !== 503) throw problem;
    serving = null;
    throw new Problem(503, `The server is not ready: ${problem.value?.reason || problem.message}.`);
  }
  const name = serving.method?.name ?? "";
  find("serving").textContent =
    `${serving.model} · ${name} · updates ${serving.update} · acclimate ${serving.acclimate}, torch ${serving.torch}`;
  lines = (await ask("/v1/streams")).streams;
  drawList();
  await drawDetail();
}

function alarm(text) {
  document.body.classList.toggle("gone", text !== null);
  find("link").classList.toggle("gone", text !== null);
  find("link").textContent = text === null ? `live, ${clock(Date.now() / 1000)}` : "not connected";
  find("alarm").hidden = text === null;
  if (text !== null) find("alarm").firstElementChild.textContent = text;
}

function later(wait) {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(poll, wait);
}

async function poll() {
  if (running) { rerun = true; return; }
  clearTimeout(timer);
  running = true;
  const start = performance.now();
  try {
    await look();
    pause = Math.min(RARELY, Math.max(SOON, 10 * (performance.now() - start)));
    alarm(null);
  } catch (problem) {
    serving = null;
    alarm(`${problem.message} What you see is of ${shown.time ?? "no time"}; the next try is in ${number(pause / 1000)} seconds.`);
    later(pause);
    pause = Math.min(RARELY, 2 * pause);
    return;
  } finally {
    running = false;
  }
  shown.time = clock(Date.now() / 1000);
  later(rerun ? 0 : pause);
  rerun = false;
}

find("search").addEventListener("input", drawList);
find("order").addEventListener("change", drawList);
find("again").addEventListener("click", () => { pause = SOON; poll(); });
addEventListener("hashchange", () => { drawList(); poll(); });
document.addEventListener("visibilitychange", () => { if (document.hidden) clearTimeout(timer); else poll(); });
poll();
