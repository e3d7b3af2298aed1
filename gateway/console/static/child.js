// The page of one child: while a command waits for its answer, asks every two seconds what became of it.
const PACE_MS = 2000;

async function look() {
  const shown = document.getElementById("given");
  if (shown.dataset.waiting === "1") {
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.getElementById("given");
        if (fresh) shown.replaceWith(document.adoptNode(fresh));
      }
    } catch {
      // the frame around says that the page is not live
    }
  }
  setTimeout(look, PACE_MS);
}

setTimeout(look, PACE_MS);
