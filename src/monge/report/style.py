"""Colours, style and script of a report, for phone and desktop, day and night."""

from __future__ import annotations

LIGHT = {
    "paper": "#fbfaf8",
    "card": "#ffffff",
    "ink": "#1c2024",
    "soft": "#60646c",
    "line": "#dcdfe4",
    "accent": "#c2410c",
    "second": "#2563a8",
    "third": "#7a5195",
    "good": "#2f7d4f",
    "bad": "#b42318",
}
DARK = {
    "paper": "#14161a",
    "card": "#1c1f25",
    "ink": "#eceef2",
    "soft": "#a2a9b4",
    "line": "#343a44",
    "accent": "#fb8b4b",
    "second": "#74aef0",
    "third": "#c39be0",
    "good": "#6cc492",
    "bad": "#ff8a7d",
}

STYLE = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
main,header.top,footer{max-width:66rem;margin:0 auto;padding:0 1.1rem}
header.top{padding-top:2.2rem}
.brand{color:var(--accent);font-weight:650;letter-spacing:.02em;font-size:.95rem}
h1{font-size:clamp(1.6rem,5vw,2.4rem);line-height:1.15;margin:.2rem 0 .4rem;
 overflow-wrap:anywhere;letter-spacing:-.02em}
h2{font-size:1.35rem;margin:0 0 .7rem;letter-spacing:-.01em}
h3{font-size:1rem;margin:0 0 .6rem}.card>:last-child{margin-bottom:0}
p{margin:.4rem 0 .8rem;max-width:46rem}
.lead{font-size:1.08rem;color:var(--soft)}
.sentence{font-size:1.22rem;line-height:1.5;max-width:48rem;margin:.6rem 0}
nav{position:sticky;top:0;z-index:2;background:var(--paper);border-bottom:1px solid var(--line);
 margin-top:1.2rem}
nav div{max-width:66rem;margin:0 auto;padding:.55rem 1.1rem;display:flex;gap:1.2rem;
 overflow-x:auto;white-space:nowrap;font-size:.92rem}
a{color:var(--second);text-decoration:none}a:hover{text-decoration:underline}
nav a{color:var(--soft)}
section{margin:2.2rem 0;scroll-margin-top:3.2rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1.1rem 1.2rem;
 margin:0 0 1rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem;
 margin:1.2rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:.8rem 1rem}
.tile b{display:block;font-size:clamp(1.2rem,4.5vw,1.55rem);overflow-wrap:anywhere;
 font-weight:640;letter-spacing:-.02em;line-height:1.25;
 font-variant-numeric:tabular-nums}
.tile span{display:block;color:var(--soft);font-size:.85rem;line-height:1.35}
.small,small{color:var(--soft);font-size:.85rem}
.soft{color:var(--soft)}
figure{margin:0}figcaption{color:var(--soft);font-size:.85rem;margin-top:.5rem}
figure img{display:block;max-width:100%;height:auto;border-radius:6px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1rem}
.pair>.card{margin:0}.pair{margin:0 0 1rem}
.trio{grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr))}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(12rem,42%),1fr));gap:.9rem}
.strip figcaption{margin-top:.25rem;text-align:center}.strip img{width:100%}
svg{display:block;width:100%;height:auto;margin:0 auto}
svg text{font-family:inherit}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);font-size:.85rem;padding-bottom:.5rem}
th,td{padding:.4rem .6rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);
 overflow-wrap:break-word}
tr:last-child>td,tr:last-child>th{border-bottom:0}
thead th{color:var(--soft);font-weight:550;font-size:.82rem;vertical-align:bottom}
tbody th{font-weight:600;min-width:7rem}th small,td small{font-weight:400;display:block}
th.n,td.n{text-align:right}td.n b,td.n small[title]{white-space:nowrap}
tr.group th{padding-top:1rem;color:var(--accent)}
@media(max-width:44rem){table,caption,tbody,tr,th,td{display:block}thead{display:none}
 tbody th{border:0;padding:.7rem 0 .1rem}
 td,td.n{display:flex;justify-content:space-between;gap:1rem;text-align:right;border:0;
 padding:.12rem 0}
 td:before{content:attr(data-name);color:var(--soft);text-align:left;flex:0 1 auto}
 td>span{flex:0 1 auto;min-width:0}td:empty{display:none}
 tbody tr{border-bottom:1px solid var(--line);padding-bottom:.5rem}}
.badge{display:inline-block;border-radius:99px;padding:.02rem .55rem;font-size:.75rem;
 font-weight:600;white-space:nowrap;color:var(--good);border:1px solid var(--good)}
.note{border-left:4px solid var(--bad);padding:.6rem .9rem;background:var(--card);
 border-radius:0 8px 8px 0;margin:.6rem 0;overflow-wrap:anywhere}
ul.verdicts{list-style:none;margin:0;padding:0}
ul.verdicts li{padding:.35rem 0 .35rem 1.3rem;position:relative}
ul.verdicts li:before{content:"";position:absolute;left:.15rem;top:.95rem;width:.5rem;height:.5rem;
 border-radius:50%;background:var(--accent)}
dl{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.25rem 1.2rem;margin:0;
 font-size:.92rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
code,pre{font:.88em/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem;
 overflow-x:auto;margin:.5rem 0 1rem}
.bar{display:flex;height:1.4rem;border-radius:6px;overflow:hidden;gap:2px;margin:.3rem 0 .7rem}
.bar i{display:block;min-width:2px}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.3rem;font-size:.88rem}
.key{margin-bottom:.8rem}
.key i{display:inline-block;width:.7rem;height:.7rem;border-radius:2px;margin-right:.4rem}
summary{cursor:pointer;color:var(--second);margin:.6rem 0}
details.fold>summary{list-style:none;margin:0;color:var(--ink)}
details.fold>summary::-webkit-details-marker{display:none}
details.fold>summary h2{display:inline-block}
details.fold>summary h2:after{content:"+";color:var(--second);margin-left:.6rem}
details.fold[open]>summary h2:after{content:"−"}
button{font:inherit;color:var(--second);background:var(--card);border:1px solid var(--line);
 border-radius:8px;padding:.15rem .8rem;cursor:pointer}
:focus-visible{outline:2px solid var(--second);outline-offset:2px}
button.zoom{display:block;padding:0;border:0;background:none;cursor:zoom-in;border-radius:6px;
 max-width:100%}
dialog{border:0;padding:0;margin:auto;max-width:96vw;max-height:96vh;background:none;
 cursor:zoom-out}
dialog::backdrop{background:rgba(0,0,0,.82)}
dialog img{display:block;max-width:96vw;max-height:96vh;width:auto;min-width:min(60vw,48rem);
 object-fit:contain;image-rendering:pixelated}
.film{max-width:26rem}.film canvas{display:block;width:100%;aspect-ratio:1}
.film .turn{display:flex;align-items:center;gap:.7rem;margin-top:.5rem;font-size:.92rem}
.film label{display:flex;gap:.5rem;flex:1;white-space:nowrap}
.film input{flex:1;min-width:4rem;accent-color:var(--accent)}
.film output{font-variant-numeric:tabular-nums;min-width:2.4rem;text-align:right}
.small-multiples{display:grid;gap:1rem 1.2rem;
 grid-template-columns:repeat(auto-fill,minmax(min(13.5rem,100%),1fr))}
.small-multiples h4{font-size:.9rem;margin:0 0 .2rem;overflow-wrap:anywhere}
.small-multiples p{margin:.15rem 0 0;font-size:.8rem;color:var(--soft)}
.ends{display:flex;justify-content:space-between;font-size:.75rem;color:var(--soft);
 font-variant-numeric:tabular-nums}
.level{display:grid;grid-template-columns:minmax(0,2fr) 3fr 2.8rem;gap:.1rem .5rem;
 font-size:.78rem;align-items:center}
.level span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.level u{display:block;text-decoration:none;height:.34rem;border-radius:2px;margin:.07rem 0}
.level em{font-style:normal;text-align:right;color:var(--soft);font-variant-numeric:tabular-nums}
footer{color:var(--soft);font-size:.85rem;padding-top:1rem;padding-bottom:3rem;
 border-top:1px solid var(--line)}
@media(max-width:36rem){.card{padding:.9rem}th,td{padding:.4rem .5rem}tbody th{min-width:8rem}
 dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
@media print{nav{position:static}.card,.tile{break-inside:avoid}}
"""

SCRIPT = """
(function(){var d=document;
function show(){var e=d.getElementById(location.hash.slice(1)),f=e&&e.querySelector('details.fold');
 if(f)f.open=true}
addEventListener('hashchange',show);show();
d.querySelectorAll('nav a').forEach(function(a){a.addEventListener('click',function(){
 setTimeout(show)})});
addEventListener('beforeprint',function(){d.querySelectorAll('details').forEach(function(f){
 f.open=true})});
var box=d.querySelector('dialog'),o=box.appendChild(d.createElement('img'));
d.querySelectorAll('button.zoom').forEach(function(b){b.addEventListener('click',function(){
 var i=b.querySelector('img');o.src=i.src;o.alt=i.alt;box.showModal()})});
box.addEventListener('click',function(){box.close()});
d.querySelectorAll('.film').forEach(function(film){
 var v=JSON.parse(film.querySelector('script').textContent),c=film.querySelector('canvas'),
 g=c.getContext('2d'),s=film.querySelector('input'),o=film.querySelector('output'),
 b=film.querySelector('button'),n=c.width,m=n*.11,w=n-2*m,timer=0;
 function ink(x){return getComputedStyle(d.documentElement).getPropertyValue(x)}
 function X(x){return m*1.5+(x-v.x[0])/(v.x[1]-v.x[0])*w}
 function Y(y){return n-m*1.5-(y-v.y[0])/(v.y[1]-v.y[0])*w}
 function text(t,x,y,a,turn){g.save();g.translate(x,y);if(turn)g.rotate(-Math.PI/2);
  g.textAlign=a;g.fillText(t,0,0);g.restore()}
 function axes(){g.strokeStyle=ink('--line');g.fillStyle=ink('--soft');g.lineWidth=2;
  g.font=n*.032+'px system-ui,sans-serif';
  g.strokeRect(X(v.x[0]),Y(v.y[1]),w,w);
  v.ticks[0].forEach(function(t){g.beginPath();g.moveTo(X(t),Y(v.y[0]));
   g.lineTo(X(t),Y(v.y[0])+8);g.stroke();text(String(t),X(t),Y(v.y[0])+n*.045,'center')});
  v.ticks[1].forEach(function(t){g.beginPath();g.moveTo(X(v.x[0]),Y(t));
   g.lineTo(X(v.x[0])-8,Y(t));g.stroke();text(String(t),X(v.x[0])-14,Y(t)+n*.01,'right')});
  text(v.names[0],X((v.x[0]+v.x[1])/2),n-n*.03,'center');
  text(v.names[1],n*.045,Y((v.y[0]+v.y[1])/2),'center',1)}
 function dots(points,r,colour){g.fillStyle=colour;points.forEach(function(p){g.beginPath();
  g.arc(X(p[0]),Y(p[1]),r,0,7);g.fill()})}
 function draw(){var k=+s.value,i,j;o.textContent=v.t[k].toFixed(2);g.clearRect(0,0,n,n);axes();
  g.save();g.beginPath();g.rect(X(v.x[0]),Y(v.y[1]),w,w);g.clip();
  dots(v.z,n/150,ink('--line'));
  g.lineWidth=2;g.strokeStyle=ink('--soft');g.globalAlpha=.25;
  if(!v.arrows)for(i=0;i<Math.min(60,v.p[0].length);i++){g.beginPath();
   for(j=0;j<=k;j++){var q=v.p[j][i];j?g.lineTo(X(q[0]),Y(q[1])):g.moveTo(X(q[0]),Y(q[1]))}
   g.stroke()}
  g.globalAlpha=1;
  if(v.arrows){g.strokeStyle=ink('--second');v.arrows[k].forEach(function(a,i){
   var x=v.at[i][0],y=v.at[i][1],x1=X(x+a[0]),y1=Y(y+a[1]),dx=x1-X(x),dy=y1-Y(y);
   g.beginPath();g.moveTo(X(x),Y(y));g.lineTo(x1,y1);g.moveTo(x1-.3*dx+.18*dy,y1-.3*dy-.18*dx);
   g.lineTo(x1,y1);g.lineTo(x1-.3*dx-.18*dy,y1-.3*dy+.18*dx);g.stroke()})}
  dots(v.p[k],n/170,ink('--accent'));g.restore()}
 function stop(){clearInterval(timer);timer=0;b.textContent='Play'}
 function play(){if(timer)return stop();if(s.value===s.max)s.value=0;b.textContent='Pause';draw();
  timer=setInterval(function(){if(s.value===s.max)return stop();s.value=+s.value+1;draw()},120)}
 s.addEventListener('input',function(){stop();draw()});b.addEventListener('click',play);
 film.addEventListener('keydown',function(e){if(e.key===' '&&e.target!==b){e.preventDefault();
  play()}});
 matchMedia('(prefers-color-scheme:dark)').addEventListener('change',draw);draw()});
})()
"""
"""Opens folded sections that are linked to, enlarges pictures, and turns the films. Nothing is
fetched; without it the page is complete but for the films."""
