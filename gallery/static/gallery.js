"use strict";
(() => {
  // Lists: a video plays while the pointer or the focus is on its card.
  for (const card of document.querySelectorAll(".cards a")) {
    const video = card.querySelector("video");
    if (!video) continue;
    const start = () => {
      if (!video.src) video.src = video.dataset.source;
      video.play().catch(() => {}); // left again before it began
    };
    const stop = () => video.pause();
    card.addEventListener("pointerenter", start);
    card.addEventListener("focus", start);
    card.addEventListener("pointerleave", stop);
    card.addEventListener("blur", stop);
  }

  // A clip's page: all videos follow the first one that can play.
  const together = [...document.querySelectorAll("#together video")];
  const play = document.getElementById("play");
  const step = document.getElementById("step");
  if (!together.length || !play) return;
  let playing = true;
  const lead = () => together.find((video) => video.readyState >= 2 && !video.error);
  const show = () => {
    play.textContent = playing ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(playing));
  };
  const follow = () => {
    const first = lead();
    if (first) {
      for (const video of together) {
        if (playing && video.paused) video.play().catch(() => {});
        if (!playing && !video.paused) video.pause();
        if (video !== first && !video.seeking && Math.abs(video.currentTime - first.currentTime) > 0.15) {
          video.currentTime = first.currentTime;
        }
      }
    }
    requestAnimationFrame(follow);
  };
  play.addEventListener("click", () => { playing = !playing; show(); });
  step.addEventListener("click", () => {
    playing = false;
    show();
    const first = lead();
    if (first) for (const video of together) video.currentTime = (first.currentTime + 0.125) % first.duration;
  });
  requestAnimationFrame(follow);
})();
