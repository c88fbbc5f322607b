// What is asked of the server. The token lives in this variable and nowhere else.

let token = null;

class Problem extends Error {
  constructor(status, text, value = null) {
    super(text);
    Object.assign(this, { status, value });
  }
}

async function ask(path, request = {}) {
  let response;
  try {
    response = await fetch(path, { ...request, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(10_000) });
  } catch {
    throw new Problem(0, "The server does not answer.");
  }
  const value = await response.json().catch(() => null);
  if (response.ok && value !== null) return value;
  const told = value?.detail;
  const text = told?.found ? `${told.found} Expected: ${told.expected}. ${told.do}` : `The server says ${response.status}.`;
  throw new Problem(response.status, text, value);
}

const at = (stream) => `/v1/streams/${encodeURIComponent(stream)}`;

const command = (stream, verb, value) =>
  ask(`${at(stream)}/${verb}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) },
    body: JSON.stringify(value),
  });
