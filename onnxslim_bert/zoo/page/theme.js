// Light or dark: as the system has it, until the button says otherwise.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const now = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  try { root.dataset.theme = localStorage.getItem("onnxslim-theme") || ""; } catch { /* no storage: not remembered */ }
  document.addEventListener("click", (event) => {
    if (!event.target.closest("#theme")) return;
    root.dataset.theme = now() === "dark" ? "light" : "dark";
    try { localStorage.setItem("onnxslim-theme", root.dataset.theme); } catch { /* as above */ }
  });
})();
