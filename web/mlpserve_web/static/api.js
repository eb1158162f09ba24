// Calls of the gateway. Every failure becomes an Error with a sentence for the person who looks.

/** A token of this tab alone, which is gone with it. */
export const tokenOf = (name) => ({
  get: () => sessionStorage.getItem(name) ?? "",
  set: (text) => sessionStorage.setItem(name, text),
});

export const token = tokenOf("token");

export async function answer(path, options = {}, bearer = token) {
  const headers = { ...options.headers };
  if (bearer.get()) headers.Authorization = `Bearer ${bearer.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The gateway cannot be reached.");
  }
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = { error: text || `HTTP ${response.status}` };
  }
  if (!response.ok) throw Object.assign(new Error(body.error), { status: response.status });
  return body;
}

const query = (version) => (version ? `?version=${version}` : "");

export const models = () => answer("api/models");
export const traffic = () => answer("api/traffic");

/** Classify a picture (a Blob) or a nested array of numbers; both come back as the network sees them. */
export const classify = (input, version) => send(`api/classify${query(version)}`, input);

/** Say what the truth about the answer of a version was: { said: "right" or "wrong" }, or { class: name }. */
export const feedback = (input, version, truth) => send(`api/feedback?${new URLSearchParams({ version, ...truth })}`, input);

function send(path, input) {
  const picture = input instanceof Blob;
  return answer(path, {
    method: "POST",
    headers: { "Content-Type": picture ? input.type || "application/octet-stream" : "application/json" },
    body: picture ? input : JSON.stringify(input),
  });
}
