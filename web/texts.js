// Every sentence of the page, in English and Chinese, and the Chinese names of parts and points.

export const TEXTS = {
  en: {
    title: "106 facial landmarks",
    open: "Open pictures",
    camera: "Webcam",
    cameraStop: "Stop webcam",
    language: "中文",
    languageLabel: "中文: switch to Chinese",
    toDark: "Dark",
    toLight: "Light",
    pictureLabel: "Picture",
    overlayLabel:
      "The picture with its points. Arrow keys go from point to point, Page Up and Page Down from face to face, Escape back to the whole picture.",
    facesLabel: "Faces",
    stripLabel: "Pictures",
    drop: "Drop pictures here, paste them, or click",
    limits: ({ mb, mp }) => `JPEG, PNG, WebP, GIF, BMP or AVIF, up to ${mb} MB and ${mp} megapixels each`,
    point: "Point",
    hint: "Point at the picture to read a landmark.",
    confidence: "confidence",
    untaught: "not taught to this network",
    parts: "Parts",
    all: "All",
    none: "None",
    show: "Show",
    points: "Points",
    lines: "Lines",
    boxes: "Boxes",
    numbers: "Numbers",
    mirror: "Mirror",
    download: "Download",
    picture: "Picture",
    allPictures: "All pictures",
    allJson: "All pictures, JSON",
    allCsv: "All pictures, CSV",
    keep: "Keep this frame",
    clear: "Remove all pictures",
    whole: "Whole picture",
    face: ({ n }) => `Face ${n}`,
    keys: "Keys: Tab to the picture, then arrows for points, Page Up and Page Down for faces, Escape for the whole picture.",
    privacy: "Pictures go to the program that serves this page and nowhere else; it does not store them.",
    waiting: ({ name }) => `${name}: waiting`,
    working: ({ name }) => `${name}: looking for faces …`,
    found: ({ name, n, ms }) => `${name}: ${n} ${n === 1 ? "face" : "faces"} in ${ms} ms`,
    no_face: ({ name }) => `${name}: no face found.`,
    live: ({ n, fps }) => `Webcam: ${n} ${n === 1 ? "face" : "faces"}, ${fps} pictures a second`,
    cameraStarting: "Waiting for the camera …",
    noCamera: "This browser gives no camera here. It does so only for https pages and for 127.0.0.1 or localhost.",
    cameraRefused: "The camera may not be used. Allow it in the address bar of the browser, then try again.",
    cameraMissing: ({ detail }) => `The camera cannot be used (${detail}). Is one connected, and free?`,
    too_large: ({ name, mb }) => `${name} is larger than ${mb} MB. Make the picture smaller.`,
    too_many_pixels: ({ name, mp }) => `${name} has more than ${mp} megapixels. Make the picture smaller.`,
    wrong_type: ({ name }) => `${name} is not a picture of a known kind. JPEG, PNG, WebP, GIF, BMP and AVIF are taken.`,
    unreadable: ({ name }) => `${name} is broken or not whole and cannot be read.`,
    busy: "Too many pictures are waiting. Try again in a moment.",
    lost: ({ name }) => `${name} could not be sent. Is the server still running, and is this a file, not a folder? Its thumbnail sends it again.`,
    noServer: "The server does not answer. Is it still running? Reload the page to try again.",
    tooLargeToDraw: ({ name }) => `${name} is larger than this browser can draw. JSON and CSV can be downloaded.`,
    other: ({ name, detail }) => `${name}: ${detail}`,
  },
  zh: {
    title: "106 点人脸关键点",
    open: "打开图片",
    camera: "摄像头",
    cameraStop: "关闭摄像头",
    language: "English",
    languageLabel: "English: 切换到英文",
    toDark: "深色",
    toLight: "浅色",
    pictureLabel: "图片",
    overlayLabel: "图片及其关键点。方向键切换点，Page Up 与 Page Down 切换人脸，Esc 回到整张图片。",
    facesLabel: "人脸",
    stripLabel: "图片列表",
    drop: "将图片拖到此处、粘贴，或点击选择",
    limits: ({ mb, mp }) => `JPEG、PNG、WebP、GIF、BMP 或 AVIF，每张不超过 ${mb} MB、${Math.round(100 * mp)} 万像素`,
    point: "关键点",
    hint: "将指针移到图片上，或触摸图片，即可读取关键点。",
    confidence: "置信度",
    untaught: "该网络未学习此点",
    parts: "部位",
    all: "全选",
    none: "全不选",
    show: "显示",
    points: "点",
    lines: "连线",
    boxes: "人脸框",
    numbers: "编号",
    mirror: "镜像",
    download: "下载",
    picture: "图片",
    allPictures: "全部图片",
    allJson: "全部图片 JSON",
    allCsv: "全部图片 CSV",
    keep: "保留这一帧",
    clear: "移除所有图片",
    whole: "整张图片",
    face: ({ n }) => `人脸 ${n}`,
    keys: "键盘：用 Tab 移到图片，方向键切换点，Page Up 与 Page Down 切换人脸，Esc 回到整张图片。",
    privacy: "图片只发送给提供本页面的程序，不会发往别处，也不会被保存。",
    waiting: ({ name }) => `${name}：等待中`,
    working: ({ name }) => `${name}：正在检测人脸……`,
    found: ({ name, n, ms }) => `${name}：${n} 张人脸，用时 ${ms} 毫秒`,
    no_face: ({ name }) => `${name}：没有找到人脸。`,
    live: ({ n, fps }) => `摄像头：${n} 张人脸，每秒 ${fps} 帧`,
    cameraStarting: "正在等待摄像头……",
    noCamera: "浏览器在此页面不提供摄像头：只有 https 页面以及 127.0.0.1 或 localhost 才可以使用。",
    cameraRefused: "没有使用摄像头的权限。请在浏览器地址栏中允许，然后重试。",
    cameraMissing: ({ detail }) => `无法使用摄像头（${detail}）。请检查是否已连接、是否被其他程序占用。`,
    too_large: ({ name, mb }) => `${name} 超过 ${mb} MB，请缩小图片。`,
    too_many_pixels: ({ name, mp }) => `${name} 超过 ${Math.round(100 * mp)} 万像素，请缩小图片。`,
    wrong_type: ({ name }) => `${name} 不是可识别的图片。支持 JPEG、PNG、WebP、GIF、BMP 和 AVIF。`,
    unreadable: ({ name }) => `${name} 已损坏或不完整，无法读取。`,
    busy: "等待处理的图片太多，请稍后再试。",
    lost: ({ name }) => `${name} 未能发送。服务是否仍在运行？这是文件而不是文件夹吗？点击其缩略图可重新发送。`,
    noServer: "服务没有响应。它是否仍在运行？请刷新页面重试。",
    tooLargeToDraw: ({ name }) => `${name} 超出此浏览器可绘制的大小；仍可下载 JSON 与 CSV。`,
    other: ({ name, detail }) => `${name}：${detail}`,
  },
};

const CHINESE_PARTS = {
  contour: "脸部轮廓", left_brow: "左眉", right_brow: "右眉", nose: "鼻子", left_eye: "左眼", right_eye: "右眼",
  outer_lip: "外唇", inner_lip: "内唇", pupils: "瞳孔",
};

const CHINESE_POINTS = {
  chin: "下巴", left_brow_outer: "左眉外端", right_brow_inner: "右眉内端", nose_base_centre: "鼻底中点",
  left_eye_outer: "左眼外眼角", left_eye_top: "左眼上缘", left_eye_inner: "左眼内眼角", left_eye_bottom: "左眼下缘",
  left_eye_centre: "左眼中心", right_eye_inner: "右眼内眼角", right_eye_top: "右眼上缘", right_eye_outer: "右眼外眼角",
  right_eye_bottom: "右眼下缘", right_eye_centre: "右眼中心", mouth_left_corner: "左嘴角", upper_lip_top: "上唇上缘中点",
  mouth_right_corner: "右嘴角", lower_lip_bottom: "下唇下缘中点", inner_lip_left: "内唇左端", inner_lip_top: "内唇上缘中点",
  inner_lip_right: "内唇右端", inner_lip_bottom: "内唇下缘中点", left_pupil: "左瞳孔", right_pupil: "右瞳孔",
};

let language = "en";

export const setLanguage = (name) => (language = name);
export const getLanguage = () => language;

/** The sentence called `key`, with values filled in. */
export function text(key, values = {}) {
  const found = TEXTS[language][key];
  return typeof found === "function" ? found(values) : found;
}

export function partName(part) {
  const words = part.replaceAll("_", " ");
  return language === "zh" ? (CHINESE_PARTS[part] ?? part) : words[0].toUpperCase() + words.slice(1);
}

/** What a person reads beside the point's own name; the English name is in the results and always shown. */
export function pointName(name, part) {
  if (language === "en") return name;
  const place = name.match(/_(\d+)$/);
  const chinese = CHINESE_POINTS[name] ?? (place && CHINESE_PARTS[part] ? `${CHINESE_PARTS[part]} ${place[1]}` : "");
  return chinese ? `${chinese} (${name})` : name;
}
