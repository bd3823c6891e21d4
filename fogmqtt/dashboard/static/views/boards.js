// Who may join, for operators: invitations with their QR code, and boards that ask.

import { useEffect, useState } from "../vendor/hooks.js";
import { act, getJson } from "../model/api.js";
import { qrPath } from "../model/qr.js";
import { html } from "./html.js";

const LOOK_MS = 3000;

/** The part of the fleet's page about new boards; nothing where boards cannot be invited. */
export function NewBoards() {
  const [boards, setBoards] = useState(null);
  const [invited, setInvited] = useState(null);
  const [problem, setProblem] = useState("");

  const asking = Boolean(boards?.asking_until);
  useEffect(() => {
    getJson("api/boards").then(setBoards, () => setBoards(null));
  }, [invited]);
  useEffect(() => {
    if (!asking) return undefined;
    const timer = setInterval(() => getJson("api/boards").then(setBoards, () => {}), LOOK_MS);
    return () => clearInterval(timer);
  }, [asking]);

  const attempt = async (what) => {
    setProblem("");
    await what().catch((error) => setProblem(error.message));
  };
  const invite = (event) => {
    event.preventDefault();
    const board = new FormData(event.target).get("board").trim();
    attempt(async () => setInvited(await act("POST", "api/boards/invitations", { board })));
  };
  const letAsk = () => attempt(async () => setBoards(await act("POST", "api/boards/asking")));
  const accept = (one) =>
    attempt(async () => setBoards(await act("POST", "api/boards/accepted", { board: one.board, code: one.code })));

  if (!boards) return null;
  return html`<section aria-labelledby="new-boards">
    <h2 id="new-boards">Add a board</h2>
    <form class="row" onSubmit=${invite}>
      <label for="board-name">Its name</label>
      <input id="board-name" name="board" required maxlength="32" pattern="[a-z0-9][a-z0-9_\\-]*"
        title="a-z, 0-9, _ and -" autocomplete="off" aria-describedby="board-problem" />
      <button class="primary">Invite</button>
      <button type="button" onClick=${letAsk} disabled=${asking}>Let boards ask for 10 minutes</button>
    </form>
    <p id="board-problem" role="alert" class="complaint">${problem}</p>
    ${invited && html`<${Invitation} invited=${invited} />`}
    ${asking && html`<${Applicants} boards=${boards} accept=${accept} />`}
  </section>`;
}

function Invitation({ invited }) {
  const until = new Date(invited.expires).toLocaleString();
  return html`<div class="card" aria-live="polite">
    <p><strong>${invited.board}</strong> is invited until ${until}, once. On a bare board, this installs all that it needs:</p>
    <pre><code>${invited.install}</code></pre>
    <p>Where fogmqtt is installed:</p>
    <pre><code>${invited.join}</code></pre>
    <svg class="qr" role="img" aria-label="QR code of the invitation" width="180" height="180"
      viewBox=${`0 0 ${invited.qr.length} ${invited.qr.length}`} shape-rendering="crispEdges">
      <rect width="100%" height="100%" fill="#fff" /><path d=${qrPath(invited.qr)} fill="#000" />
    </svg>
  </div>`;
}

function Applicants({ boards, accept }) {
  const until = new Date(boards.asking_until).toLocaleTimeString();
  return html`<div class="card" aria-live="polite">
    <p>Boards may ask until ${until}: on one, <code>fog-device --id NAME</code>. Let one in only if it shows the same code.</p>
    <ul>${boards.applicants.map(
      (one) => html`<li key=${one.board + one.code}><strong>${one.board}</strong> asks from ${one.address} with the code <code>${one.code}</code>
        <button onClick=${() => accept(one)}>The board shows ${one.code}: let it in</button></li>`,
    )}</ul>
  </div>`;
}
