// Security keys. A form with data-begin asks the server what to sign, has the browser ask the person for their key, and
// is sent with the key's answer in its field `proof`. Without script or keys in the browser its button stays hidden.
"use strict";

const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (sign) => sign.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
  .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

async function answer(form) {
  const response = await fetch(form.dataset.begin, { method: "POST", body: new FormData(form) });
  if (!response.ok) throw new Error("the page is too old");
  const options = await response.json();
  options.challenge = bytes(options.challenge);
  for (const list of [options.allowCredentials, options.excludeCredentials]) {
    for (const key of list ?? []) key.id = bytes(key.id);
  }
  if (options.user) {
    options.user.id = bytes(options.user.id);
    return navigator.credentials.create({ publicKey: options });
  }
  return navigator.credentials.get({ publicKey: options });
}

function proof(credential) {
  const response = { clientDataJSON: text(credential.response.clientDataJSON) };
  for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"]) {
    const value = credential.response[name];
    if (value) response[name] = text(value);
  }
  return JSON.stringify({ id: credential.id, rawId: text(credential.rawId), type: credential.type, response });
}

for (const form of document.querySelectorAll("form[data-begin]")) {
  if (!window.PublicKeyCredential) continue;
  form.hidden = false;
  document.querySelector(".unable")?.remove();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const told = form.querySelector("[role=alert]");
    const button = form.querySelector("button");
    told.textContent = "";
    button.disabled = true;
    try {
      form.elements.proof.value = proof(await answer(form));
      form.submit();
    } catch {
      told.textContent = form.dataset.failed;
      button.disabled = false;
    }
  });
}
