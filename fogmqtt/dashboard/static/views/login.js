// Where a user without a cookie gives the token.

import { useState } from "../vendor/hooks.js";
import { login } from "../state.js";
import { Heading, html } from "./html.js";

export function LoginView() {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);

  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem("");
    await login(token.trim()).catch((error) => setProblem(error.message));
    setBusy(false);
  };

  return html`<main class="login">
    <form class="card" onSubmit=${submit}>
      <${Heading}>Log in<//>
      <p>The dashboard printed a link with a token when it started for the first time. Open that link, or give the token here.</p>
      <label for="token">Token</label>
      <input id="token" type="password" autocomplete="current-password" required value=${token}
        onInput=${(event) => setToken(event.target.value)} aria-describedby="login-problem" />
      <p id="login-problem" role="alert" class="complaint">${problem}</p>
      <button class="primary" disabled=${busy}>Log in</button>
    </form>
  </main>`;
}
