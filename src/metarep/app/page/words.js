// Everything that the page says, in two languages. `say("images", {n: 2})` fills {n}; `KEY.one` is taken where n is 1.

const WORDS = {
  en: {
    "skip": "To the classes",
    "download": "Download the model", "export": "Export (ONNX)", "exporting": "Making the ONNX graph; this takes some seconds …", "exported": "Exported: {file}.",
    "welcome": "Teach it a few of your own images",
    "step.classes": "Make two classes or more, and give each a few photographs: five will do.",
    "step.ask": "Show it another photograph: it says which class, how sure it is, and what it looked at.",
    "step.correct": "Where it is wrong, say what is right. It learns at once, without training.",
    "facts": "{classes} · {images} · seen by {encoder} at {height} × {width} px",
    "classes.n": "{n} classes", "classes.n.one": "1 class",
    "images.n": "{n} images", "images.n.one": "1 image",
    "ask": "What is this?",
    "ask.drop": "Drop or paste a photograph here",
    "ask.empty": "The answer comes here.",
    "asked": "Asked before",
    "answer": "Answer",
    "asking": "Looking at it …",
    "choose": "Choose a file", "camera": "Camera", "add": "Add images", "add.short": "Add", "rename": "Rename", "remove": "Remove",
    "looks": "It looks like", "unknown": "None of these",
    "unknown.why": "It is unlike all images of your classes. Most like {label}, if it had to be one.",
    "also": "It may also be {names}.",
    "bars": "Probability of each class", "others": "{n} others", "others.one": "1 other",
    "near": "What it looked at",
    "near.one": "{label}, similarity {similarity}",
    "right": "Is that right?", "yes": "Yes, learn it as {label}",
    "really": "No, it is", "really.unknown": "Tell it what it is", "learn": "Learn it",
    "learned": "Learned “{item}” as {label}.", "learned.n": "Learned {n} images as {label}.", "learned.n.one": "Learned 1 image as {label}.",
    "learning": "Learning {n} of {all} …",
    "repeats.left": "Left out {n} that it has already: {which}.", "repeats.left.one": "Left out 1 that it has already: {which}.",
    "repeats.other": "{n} are in another class too: {which}.", "repeats.other.one": "1 is in another class too: {which}.",
    "repeat.left": "{item} is {same}", "repeat.other": "{item} is {same} in {label}", "repeat.more": "{n} more",
    "nothing.new": "Nothing new for {label}.",
    "undo": "Undo", "undone": "Forgotten again.", "taken.back": "Taken back.", "close": "Close", "cancel": "Cancel", "done": "Done", "take": "Take a picture",
    "taken": "{n} taken", "taken.one": "1 taken", "camera.for": "Camera: {label}", "camera.no": "The camera cannot be used: {why}",
    "hold": "Hold the button to take several; turn the object meanwhile.", "live.no": "No answer: {why}",
    "classes": "Classes",
    "classes.how": "Drop images on a class to add them, or whole folders on “A new class”: each becomes a class of its name.",
    "search": "Find a class", "found": "{n} of {all} classes", "found.all": "All {n} classes", "found.none": "No class is called so.",
    "open": "Open", "fold": "Fold",
    "new.name": "A new class", "new.drop": "Name it and add images, or drop images or folders here.",
    "more": "{n} more", "fewer": "Show fewer",
    "name.needed": "Give the class a name first.",
    "rename.title": "Rename {label}", "rename.merge": "There is a class {label} already. Let the two become one?", "merge": "Make them one",
    "remove.title": "Remove {label}?", "remove.text": "Its images are forgotten with it: {images}.",
    "remove.image": "Forget this image", "removed": "Forgotten: {label}.", "renamed": "Now called {label}.",
    "move": "Move", "move.to": "It belongs to", "moved": "Moved to {label}.",
    "image.in": "in {label}", "similar": "Most similar to it",
    "trust": "How far to trust it",
    "accuracy": "{accuracy} of further images like these are expected to be recognised. {tested} were left out to find out, one of every class at a time.",
    "accuracy.few": "About {right} of {tested} images are recognised when one of every class is left out.",
    "accuracy.interval": "{accuracy} % ({low} to {high})",
    "accuracy.expected": "Somewhere between {low} and {high} % of images may be recognised, as with one image a class elsewhere: {source}. Your own cannot be tested before a class has a second image.",
    "accuracy.none": "Not known yet: two classes or more, with two images or more in each, can be tested.",
    "known": "“None of these” is said of at most {share} % of images of your classes.",
    "known.none": "“None of these” is not said yet: that takes {n} images or more, in classes of two or more.",
    "alike": "almost the same name: {names}", "needs": "needs more images", "needs.title": "These classes need more images",
    "each": "Accuracy of each class", "each.one": "{right} % of {tested}", "each.interval": "{low} to {high} %", "each.none": "not tested",
    "copies": "Nearly the same picture", "copies.how": "{n} groups of images are nearly one picture each. They are left out together when accuracy is measured.",
    "copies.how.one": "1 group of images is nearly one picture. They are left out together when accuracy is measured.", "copies.more": "and {n} groups more", "copies.more.one": "and 1 group more",
    "doubts": "These look mislabelled", "doubts.none": "No image looks mislabelled.",
    "doubt": "{item} is in {label} and looks like {likelier}", "doubt.move": "Move to {label}", "doubt.keep": "It is right", "doubts.more": "{n} more", "doubts.more.one": "1 more",
    "map": "Map of your images",
    "map.note": "Near means alike; far means little. Of the five images most like each, {share} % are among its five nearest here.",
    "map.coming": "The map is being drawn …",
    "map.label": "Map of {images} in {classes}; the same images are listed under Classes.",
    "map.legend": "Classes of the map",
    "token": "This server asks for a token", "token.how": "Token, as whoever started the server gave it", "token.go": "Go on",
    "token.wrong": "That is not it.",
    "bad": "{n} could not be used. {why}",
    "error.413": "Too much", "error.422": "This cannot be used", "error.429": "The server is busy", "error.401": "No access", "error.501": "Not installed on this server",
    "error.why": "{what}. {why}", "error.0": "The server does not answer", "error.other": "That did not work",
    "error.gone": "Is it still running? What you did last may not have been learned.",
  },
  zh: {
    "skip": "跳到类别",
    "download": "下载模型", "export": "导出 ONNX", "exporting": "正在生成 ONNX 计算图，需要几秒……", "exported": "已导出：{file}。",
    "welcome": "用几张自己的图片教它",
    "step.classes": "建立两个或更多类别，每类给几张照片，五张就够。",
    "step.ask": "再给它看一张照片：它会说出类别、把握有多大，以及参考了哪些图片。",
    "step.correct": "答错了就告诉它正确答案。它马上学会，不需要训练。",
    "facts": "{classes} · {images} · 编码器 {encoder}，{height} × {width} 像素",
    "classes.n": "{n} 个类别",
    "images.n": "{n} 张图片",
    "ask": "这是什么？",
    "ask.drop": "把照片拖到这里，或直接粘贴",
    "ask.empty": "答案会显示在这里。",
    "asked": "之前问过的",
    "answer": "答案",
    "asking": "正在看……",
    "choose": "选择文件", "camera": "拍照", "add": "添加图片", "add.short": "添加", "rename": "改名", "remove": "删除",
    "looks": "看起来是", "unknown": "都不是",
    "unknown.why": "它和所有类别的图片都不像。如果一定要选，最像 {label}。",
    "also": "也可能是 {names}。",
    "bars": "各类别的概率", "others": "其他 {n} 类",
    "near": "它参考了这些图片",
    "near.one": "{label}，相似度 {similarity}",
    "right": "答对了吗？", "yes": "对，按 {label} 学习",
    "really": "不对，它是", "really.unknown": "告诉它这是什么", "learn": "学习",
    "learned": "已把“{item}”学为 {label}。", "learned.n": "已把 {n} 张图片学为 {label}。",
    "learning": "正在学习第 {n} / {all} 张……",
    "repeats.left": "有 {n} 张已经有了，没有重复学习：{which}。",
    "repeats.other": "有 {n} 张在别的类别里也有：{which}。",
    "repeat.left": "{item} 就是 {same}", "repeat.other": "{item} 就是 {label} 里的 {same}", "repeat.more": "另外 {n} 张",
    "nothing.new": "{label} 没有学到新图片。",
    "undo": "撤销", "undone": "已经忘掉。", "taken.back": "已撤销。", "close": "关闭", "cancel": "取消", "done": "完成", "take": "拍一张",
    "taken": "已拍 {n} 张", "camera.for": "拍照：{label}", "camera.no": "无法使用相机：{why}",
    "hold": "按住按钮可连拍；同时转动物体。", "live.no": "没有答案：{why}",
    "classes": "类别",
    "classes.how": "把图片拖到某个类别上即可添加；也可以把整个文件夹拖到“新类别”上，每个文件夹成为一个同名类别。",
    "search": "查找类别", "found": "{n} / {all} 个类别", "found.all": "全部 {n} 个类别", "found.none": "没有这样的类别。",
    "open": "展开", "fold": "折叠",
    "new.name": "新类别", "new.drop": "起个名字再添加图片，或把图片、文件夹拖到这里。",
    "more": "还有 {n} 张", "fewer": "收起",
    "name.needed": "请先给类别起个名字。",
    "rename.title": "给 {label} 改名", "rename.merge": "已经有类别 {label}。要把两个合并吗？", "merge": "合并",
    "remove.title": "删除 {label}？", "remove.text": "它的图片也会一起忘掉：{images}。",
    "remove.image": "忘掉这张图片", "removed": "已忘掉：{label}。", "renamed": "现在叫 {label}。",
    "move": "移动", "move.to": "它属于", "moved": "已移到 {label}。",
    "image.in": "类别：{label}", "similar": "和它最像的",
    "trust": "可以信它几分",
    "accuracy": "对今后的同类图片，预计识别正确的占 {accuracy}；为此每次从每一类留出一张，共测试了 {tested}。",
    "accuracy.few": "每次从每一类留出一张来测试，{tested} 张图片中约识别正确 {right} 张。",
    "accuracy.interval": "{accuracy} %（{low} 至 {high}）",
    "accuracy.expected": "识别正确的可能占 {low} % 到 {high} %，与别处每类一张图片时一样（{source}）。某一类有第二张图片之后，才能测试您自己的图片。",
    "accuracy.none": "还不知道：至少要有两个类别，每类至少两张图片，才能测试。",
    "known": "属于您的类别的图片，最多有 {share} % 会被说成“都不是”。",
    "known.none": "现在还不会说“都不是”：需要至少 {n} 张图片，且所在类别不少于两张。",
    "alike": "名字几乎相同：{names}", "needs": "需要更多图片", "needs.title": "这些类别需要更多图片",
    "each": "各类别的准确率", "each.one": "{tested}中的 {right} %", "each.interval": "{low} 至 {high} %", "each.none": "没有测试",
    "copies": "几乎相同的图片", "copies.how": "有 {n} 组图片，每组几乎是同一张。测试准确率时，同组的图片一起留出。", "copies.more": "还有 {n} 组",
    "doubts": "这些图片可能放错了", "doubts.none": "没有看起来放错的图片。",
    "doubt": "{item} 在 {label} 里，看起来像 {likelier}", "doubt.move": "移到 {label}", "doubt.keep": "没有放错", "doubts.more": "还有 {n} 张",
    "map": "图片地图",
    "map.note": "离得近表示相像，离得远说明不了什么。与每张图片最像的五张中，有 {share} % 在图上也是离它最近的五张。",
    "map.coming": "正在绘制地图……",
    "map.label": "{classes}、{images}的地图；同样的图片都列在“类别”里。",
    "map.legend": "地图上的类别",
    "token": "此服务器需要口令", "token.how": "启动服务器的人给您的口令", "token.go": "继续",
    "token.wrong": "口令不对。",
    "bad": "有 {n} 张无法使用。{why}",
    "error.413": "太多或太大", "error.422": "无法使用", "error.429": "服务器正忙", "error.401": "没有权限", "error.501": "服务器上没有安装",
    "error.why": "{what}。{why}", "error.0": "服务器没有应答",
    "error.file": "“{item}”读不出来：不是图片，或已损坏。可用的格式：JPEG、PNG、WebP、BMP、TIFF、GIF。", "error.other": "没有成功",
    "error.gone": "它还在运行吗？刚才的操作可能没有学到。",
  },
};

let language = localStorage.getItem("language") ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export function say(key, values = {}) {
  const words = WORDS[language];
  const text = (values.n === 1 && words[`${key}.one`]) || words[key] || key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export const spoken = () => language;

export function knows(key) {
  return key in WORDS[language];
}

// Nothing is certain, and nothing impossible.
export const percent = (value) => (value > 0.99 ? "> 99 %" : value < 0.01 ? "< 1 %" : `${Math.round(100 * value)} %`);

// Joins names as a sentence of the language does.
export function list(names) {
  return new Intl.ListFormat(language, { type: "disjunction" }).format(names);
}

export function translate(root = document) {
  document.documentElement.lang = language;
  for (const each of root.querySelectorAll("[data-word]")) each.textContent = say(each.dataset.word);
  for (const each of root.querySelectorAll("[data-hint]")) each.placeholder = say(each.dataset.hint);
  for (const each of root.querySelectorAll("[data-label]")) each.setAttribute("aria-label", say(each.dataset.label));
  const other = document.getElementById("language");
  other.textContent = language === "en" ? "中文" : "English";
  other.lang = language === "en" ? "zh" : "en";
}

export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("language", language);
}
