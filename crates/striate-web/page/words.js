// All words of the page, in English and Korean.

const WORDS = {
  // The language that the switch leads to, in its own words.
  other_language: ["한국어", "English"],
  scheme_auto: ["Light/dark: system", "밝기: 시스템"],
  scheme_light: ["Light", "밝게"],
  scheme_dark: ["Dark", "어둡게"],
  input: ["Image", "이미지"],
  views: ["Views", "보기"],
  training: ["Training", "학습"],
  layers: ["Layers", "계층"],
  why: ["Why", "판단 근거"],
  similar: ["Similar", "비슷한 이미지"],
  mistakes: ["Confusion matrix", "혼동 행렬"],
  filters: ["Filters", "필터"],
  network: ["Network", "구조"],
  loading: ["loading …", "불러오는 중 …"],
  gone: ["The server does not answer any more.", "서버가 더는 응답하지 않습니다."],
  draw_digit: [
    "Draw a digit, or drop, paste or open an image.",
    "숫자를 그리거나, 이미지를 끌어다 놓거나 붙여 넣거나 여세요.",
  ],
  draw_image: ["Drop, paste or open an image, or draw.", "이미지를 끌어다 놓거나 붙여 넣거나 열거나, 직접 그리세요."],
  pad: [
    "Drawing area. With the keyboard: arrow keys move the pen, the space bar puts it down and lifts it.",
    "그림판. 키보드로는 화살표 키로 펜을 움직이고 스페이스 바로 펜을 내리고 듭니다.",
  ],
  clear: ["Clear", "지우기"],
  undo: ["Undo", "되돌리기"],
  sample: ["Test image", "시험 이미지"],
  open: ["Open", "열기"],
  camera: ["Camera", "카메라"],
  take: ["Take", "촬영"],
  close: ["Close", "닫기"],
  no_camera: ["The camera can't be used: {reason}", "카메라를 쓸 수 없습니다: {reason}"],
  seen: ["What the network sees", "신경망이 보는 이미지"],
  probabilities: ["Probabilities", "확률"],
  verdict: ["{class}, {probability} sure", "{class} (확률 {probability})"],
  labelled: ["labelled {label}", "정답 {label}"],
  from_test: ["test image {index}", "시험 이미지 {index}"],
  from_train: ["training image {index}", "훈련 이미지 {index}"],
  layers_hint: [
    "Point at a pixel of a feature map to see how it comes about. With the keyboard: Tab to a layer, arrow keys move, [ and ] change the map.",
    "특징 맵의 픽셀을 가리키면 그 값이 어떻게 나오는지 보입니다. 키보드로는 Tab으로 계층을 고르고, 화살표 키로 움직이고, [ 와 ] 로 맵을 바꿉니다.",
  ],
  layer_maps: ["{layer}: {count} feature maps", "{layer}: 특징 맵 {count}개"],
  left_out: ["{count} more maps are not shown.", "나머지 맵 {count}개는 생략했습니다."],
  negative: ["negative", "음수"],
  positive: ["positive (each map on its own scale)", "양수 (맵마다 눈금이 다름)"],
  less: ["speaks against", "반대 근거"],
  more: ["speaks for (own scale)", "찬성 근거 (각자 눈금)"],
  nothing: ["nothing", "없음"],
  most: ["most", "가장 큼"],
  worked: ["How a number comes about", "숫자 하나가 나오기까지"],
  worked_at: ["{layer}, map {map}, row {row}, column {column}", "{layer}, 맵 {map}, {row}행 {column}열"],
  worked_feature: ["{layer}, number {map}", "{layer}, {map}번째 값"],
  field: [
    "It depends on {rows} x {columns} pixels of the image: the receptive field.",
    "이미지의 {rows} x {columns} 픽셀에 좌우됩니다: 수용 영역.",
  ],
  window: ["window", "윈도"],
  window_of: ["window of map {map}", "맵 {map}의 윈도"],
  weights: ["filter", "필터"],
  products: ["products", "곱"],
  sum_is: ["sum {sum}", "합 {sum}"],
  rest: ["the other {count}: {sum}", "나머지 {count}개: {sum}"],
  bias: ["bias {bias}", "편향 {bias}"],
  value: ["= {value}", "= {value}"],
  largest: ["The largest of the window: {value}", "윈도에서 가장 큰 값: {value}"],
  mean: ["The mean of the window: {value}", "윈도의 평균: {value}"],
  point: ["Made of the number at the same place: {inputs} → {value}", "같은 자리의 값에서 나옴: {inputs} → {value}"],
  input_number: ["input", "입력"],
  weight: ["weight", "가중치"],
  product: ["product", "곱"],
  class: ["Class", "클래스"],
  predicted: ["the predicted one", "예측된 클래스"],
  cam_layer: ["Layer of Grad-CAM", "Grad-CAM의 계층"],
  last_convolution: ["the last convolution", "마지막 합성곱"],
  score: ["The score (logit) of {class} is {score}.", "{class}의 점수(로짓)는 {score}입니다."],
  "grad-cam": ["Grad-CAM", "Grad-CAM"],
  occlusion: ["Occlusion", "가림"],
  gradient: ["Gradient", "기울기"],
  "about_grad-cam": ["Where {layer} finds the class.", "{layer}이(가) 클래스를 찾아내는 자리."],
  about_occlusion: [
    "What the score loses where a square of {window} pixels covers the image; {reach} at most.",
    "한 변이 {window}픽셀인 정사각형으로 가렸을 때 줄어드는 점수. 가장 큰 변화는 {reach}.",
  ],
  about_gradient: [
    "How much the score follows each pixel.",
    "점수가 각 픽셀을 따라 변하는 정도.",
  ],
  filters_of: ["Filters of", "필터를 볼 계층"],
  filters_are: ["{count} filters of {channels} x {rows} x {columns}", "{channels} x {rows} x {columns} 필터 {count}개"],
  similar_are: [
    "The training images whose features ({layer}) are most alike (cosine), among {among}.",
    "훈련 이미지 {among}장 가운데 특징({layer})이 가장 비슷한 것들(코사인).",
  ],
  looking: ["Looking through the data …", "데이터를 살펴보는 중 …"],
  matrix: ["{correct} of {images} test images are right. Choose a cell to see its images.", "시험 이미지 {images}장 가운데 {correct}장을 맞혔습니다. 칸을 고르면 그 이미지들이 보입니다."],
  cell: ["{row} taken for {column}: {count}", "{row}을(를) {column}(으)로 봄: {count}장"],
  cell_right: ["{row}, recognised: {count}; the least sure first", "{row}을(를) 맞힘: {count}장, 확신이 낮은 것부터"],
  open_hint: ["Choosing an image looks into it.", "이미지를 고르면 그 속을 들여다봅니다."],
  layer: ["layer", "계층"],
  shape: ["output", "출력"],
  parameters: ["parameters", "매개변수"],
  receptive: ["receptive field", "수용 영역"],
  phase_starting: ["starting", "시작하는 중"],
  phase_running: ["training", "학습 중"],
  phase_paused: ["paused", "일시 정지"],
  phase_evaluating: ["evaluating", "평가 중"],
  phase_stopping: ["stopping", "멈추는 중"],
  phase_done: ["done", "끝남"],
  phase_failed: ["failed", "실패"],
  phase: ["state", "상태"],
  epoch: ["epoch", "에폭"],
  step: ["step", "단계"],
  loss: ["loss", "손실"],
  accuracy: ["training accuracy", "훈련 정확도"],
  held_out: ["held-out accuracy", "평가 정확도"],
  rate: ["images a second", "초당 이미지"],
  left: ["time left", "남은 시간"],
  learning_rate: ["learning rate", "학습률"],
  pause: ["Pause", "일시 정지"],
  resume: ["Resume", "계속"],
  stop: ["Stop", "멈춤"],
  really_stop: ["Stop for good?", "정말 멈출까요?"],
  stop_hint: ["A stopped run can be resumed with striate train --resume.", "멈춘 학습은 striate train --resume으로 이어 갈 수 있습니다."],
  stop_hint_local: [
    "It trains on this device, in this page: reloading or closing the page ends it.",
    "이 페이지가 이 기기에서 직접 학습합니다. 페이지를 새로 고치거나 닫으면 끝납니다.",
  ],
  lesson_hint: [
    "Train the book's SimpleConvNet on MNIST, here in the browser, from fresh weights. The tabs then show the network as it learns.",
    "책의 SimpleConvNet을 이 브라우저에서 MNIST로 처음부터 학습합니다. 다른 탭에는 배우고 있는 신경망이 보입니다.",
  ],
  lesson_images: ["training images", "훈련 이미지 수"],
  lesson_epochs: ["epochs", "에폭 수"],
  lesson_optimizer: ["optimizer", "최적화 기법"],
  lesson_learning_rate: ["learning rate", "학습률"],
  lesson_seed: ["seed", "난수 시드"],
  begin: ["Train", "학습 시작"],
  open_model: ["Open a model", "모델 열기"],
  save_model: ["Download the model", "모델 내려받기"],
  model_hint: [
    "A model file (.safetensors or .onnx) can also be dropped anywhere on the page.",
    "모델 파일(.safetensors, .onnx)은 페이지 아무 곳에나 끌어다 놓아도 됩니다.",
  ],
  now_mistaken: ["Mistaken now", "지금 틀리는 이미지"],
  mistaken_for: ["{label} taken for {predicted}, {probability}", "{label} → {predicted}, {probability}"],
  no_mistakes: ["None of the images looked at.", "살펴본 이미지 중에는 없습니다."],
  filters_now: ["Filters now", "지금의 필터"],
  seconds: ["{s} s", "{s}초"],
  minutes: ["{m} min {s} s", "{m}분 {s}초"],
  hours: ["{h} h {m} min", "{h}시간 {m}분"],
};

let language = 0;

/** `en` or `ko`. */
export const current = () => ["en", "ko"][language];

export function choose(name) {
  language = name === "ko" ? 1 : 0;
  document.documentElement.lang = current();
  document.querySelectorAll("[data-t], [data-t-label]").forEach(fill);
}

const written = (value) => (Number.isInteger(value) && value >= 1000 ? value.toLocaleString("en") : value);

/** The words of this key with values in their places. */
export function words(key, values = {}) {
  const text = WORDS[key]?.[language] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => written(values[name]) ?? whole);
}

/** Writes an element's words anew. */
export function fill(element) {
  const { t, tValues, tLabel, tLabelValues } = element.dataset;
  if (t) element.textContent = words(t, JSON.parse(tValues || "{}"));
  if (tLabel) element.setAttribute("aria-label", words(tLabel, JSON.parse(tLabelValues || "{}")));
}
