// Takes photos with the camera of the visitor.

const $ = (id) => document.getElementById(id);

// Wires the buttons; `onPhoto` gets each photo as a JPEG, `onError` a message, or "" to clear it.
export function listenToCamera(onPhoto, onError) {
  $("camera").addEventListener("click", () => cameraOn(onError));
  $("camera-off").addEventListener("click", cameraOff);
  $("shoot").addEventListener("click", () => takePhoto(onPhoto));
}

async function cameraOn(onError) {
  onError("");
  if (!navigator.mediaDevices?.getUserMedia) {
    onError("Browsers allow the camera on localhost and https only.");
    return;
  }
  try {
    const wanted = { video: { facingMode: "environment", width: { ideal: 1280 } }, audio: false };
    $("video").srcObject = await navigator.mediaDevices.getUserMedia(wanted);
  } catch (error) {
    onError(error.name === "NotAllowedError" ? "Camera access was denied." : "No camera was found.");
    return;
  }
  $("shoot").disabled = true; // until there is a frame
  $("camera-box").hidden = false;
  try {
    await $("video").play();
  } catch {
    return; // cancelled before the first frame
  }
  $("shoot").disabled = false;
  $("shoot").focus();
}

function cameraOff() {
  for (const track of $("video").srcObject?.getTracks() ?? []) track.stop();
  $("video").srcObject = null;
  $("camera-box").hidden = true;
}

function takePhoto(onPhoto) {
  const video = $("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  cameraOff();
  canvas.toBlob((blob) => blob && onPhoto(blob), "image/jpeg", 0.95);
}
