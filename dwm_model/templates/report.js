"use strict";
(() => {
  const sources = JSON.parse(document.getElementById("videos").textContent);
  const play = document.getElementById("play");
  const slider = document.getElementById("frame");
  const counter = document.getElementById("counter");
  const speed = document.getElementById("speed");
  const seed = document.getElementById("seed");
  const frames = Number(slider.max) + 1;

  // One clock for all videos: a position in [0, 1) of the clip. Only videos near the view are loaded and follow it.
  const clock = { position: 0, playing: true, seconds: 0, last: null };
  const active = new Set();

  function load(video) {
    if (active.has(video)) return;
    video.src = "data:video/mp4;base64," + sources[video.dataset.video];
    active.add(video);
  }

  function unload(video) {
    if (!active.delete(video)) return;
    video.pause();
    video.removeAttribute("src");
    video.load();
  }

  function follow(video) {
    if (video.readyState < 2 || video.seeking) return;
    clock.seconds = clock.seconds || video.duration;
    const frame = video.duration / frames;
    if (clock.playing) {
      const target = clock.position * video.duration;
      let ahead = video.currentTime - target;
      ahead -= Math.round(ahead / video.duration) * video.duration; // across the loop's end
      if (Math.abs(ahead) > 2 * frame) video.currentTime = target;
      const nudge = Math.abs(ahead) < frame / 8 ? 1 : 1 - Math.max(-0.2, Math.min(0.2, ahead / frame / 2));
      const rate = Number(speed.value) * video.duration / clock.seconds * nudge;
      if (Math.abs(video.playbackRate - rate) > 0.02) video.playbackRate = rate;
      if (video.paused) video.play().catch(() => {}); // interrupted by unloading: nothing to do
    } else {
      if (!video.paused) video.pause();
      const target = (Math.floor(clock.position * frames) + 0.5) * frame; // the middle of the frame
      if (Math.abs(video.currentTime - target) > frame / 4) video.currentTime = target;
    }
  }

  function show() {
    const frame = Math.min(frames - 1, Math.floor(clock.position * frames));
    slider.value = String(frame);
    counter.textContent = `${frame + 1} / ${frames}`;
  }

  function tick(now) {
    if (clock.playing && clock.seconds && clock.last !== null) {
      const passed = Math.min(0.25, (now - clock.last) / 1000); // a page in the background does not jump
      clock.position = (clock.position + passed * Number(speed.value) / clock.seconds) % 1;
      show();
    }
    clock.last = now;
    active.forEach(follow);
    requestAnimationFrame(tick);
  }

  function setPlaying(playing) {
    clock.playing = playing;
    play.textContent = playing ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(playing));
  }

  function seek(frame) {
    setPlaying(false);
    clock.position = (Math.max(0, Math.min(frames - 1, frame)) + 0.001) / frames;
    show();
  }

  play.addEventListener("click", () => setPlaying(!clock.playing));
  slider.addEventListener("input", () => seek(Number(slider.value)));
  if (seed) {
    seed.addEventListener("change", () => {
      document.querySelectorAll("figure[data-seed]").forEach((figure) => {
        figure.hidden = figure.dataset.seed !== seed.value;
      });
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("button, select, input, .scroll") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") setPlaying(!clock.playing);
    else if (event.key === "ArrowRight") seek(Number(slider.value) + 1);
    else if (event.key === "ArrowLeft") seek(Number(slider.value) - 1);
    else return;
    event.preventDefault();
  });

  const near = new IntersectionObserver((entries) => {
    entries.forEach((entry) => (entry.isIntersecting ? load : unload)(entry.target));
  }, { rootMargin: "400px 0px" });
  document.querySelectorAll("video").forEach((video) => near.observe(video));

  setPlaying(!matchMedia("(prefers-reduced-motion: reduce)").matches);
  show();
  requestAnimationFrame(tick);
})();
