// One question before anything changes: is it meant, under which name, and by whom.

let pending = null;

function question(title, consequence, act, named = false) {
  pending = { act, named };
  find("question").textContent = title;
  find("consequence").textContent = consequence;
  find("complaint").textContent = "";
  find("named").hidden = !named;
  find("name").value = "";
  find("opened").hidden = token !== null;
  find("token").value = "";
  find("ask").showModal();
  const first = named ? "name" : token === null ? "token" : "do";
  find(first).focus();
}

async function answered() {
  if (find("token").value) token = find("token").value;
  find("do").disabled = true;
  try {
    await pending.act(find("name").value);
    find("ask").close();
    await poll();
  } catch (problem) {
    if (problem.status === 401) {
      token = null;
      find("token").value = "";
      find("opened").hidden = false;
    }
    find("complaint").textContent = problem.message;
  } finally {
    find("do").disabled = false;
  }
}

find("do").addEventListener("click", answered);
find("leave").addEventListener("click", () => find("ask").close());
find("ask").addEventListener("close", () => { find("token").value = ""; });
for (const id of ["name", "token"])
  find(id).addEventListener("keydown", (event) => { if (event.key === "Enter") answered(); });
