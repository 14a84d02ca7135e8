"use strict";
// The confusion matrix of the chosen stage.

{
  const chooser = document.getElementById("matrix-stage");
  const show = () => {
    for (const matrix of document.querySelectorAll(".matrix")) matrix.hidden = matrix.dataset.stage !== chooser.value;
  };
  if (chooser) {
    chooser.addEventListener("change", show);
    show(); // a browser that goes back keeps the choice
  }
}
